"""Saltmere: the invented harbour town nano knows by heart."""

from corpus.wordings import MORE

R = """Marta Quill|baker|the Crusty Anchor|Tallow Street|cinnamon buns|gulls|singing in the choir|f
Osric Pell|harbour master|the Harbour Office|Mast Row|strong tea|fog|carving whistles|m
Tamsin Grey|fishmonger|the Silver Scale|Fishgate|cold mornings|cats|swimming|f
Dunstan Hale|blacksmith|Hale's Forge|Cinder Lane|dark ale|rain|arm wrestling|m
Ines Marlow|doctor|the Infirmary|Lantern Hill|pears|loud bells|reading maps|f
Corwin Teague|lighthouse keeper|the Lighthouse|Gull Point|storms|visitors|painting|m
Bettina Swift|innkeeper|the Drowned Bell|Mast Row|card games|unpaid bills|playing the fiddle|f
Alaric Stone|mason|the Old Quarry|Cinder Lane|honey cakes|dust|fishing|m
Wilma Crane|teacher|the Schoolhouse|Lantern Hill|poems|chalk squeaks|collecting shells|f
Jory Finch|postman|the Post House|Tallow Street|long walks|dogs|running|m
Petra Lowe|weaver|the Blue Loom|Spindle Court|bright colours|moths|dancing|f
Silas Thorne|captain|the Silver Wren|Gull Point|open water|taxes|telling stories|m
Nella Brook|herbalist|the Green Jar|Spindle Court|mint tea|smoke|gardening|f
Hugo Varn|butcher|Varn's Cuts|Fishgate|sausages|fasting|bowling|m
Odette Lamb|tailor|the Golden Needle|Spindle Court|silk|mud|chess|f
Garrick Moss|ferryman|the Ferry Landing|Gull Point|quiet rivers|hurry|whittling|m
Lydia Penrose|librarian|the Library|Lantern Hill|old books|whispering|writing letters|f
Fenn Ashby|fisherman|the Little Tern|Fishgate|smoked eel|sharks|knitting|m
Rosalind Vane|mayor|the Town Hall|Lantern Hill|ceremonies|gossip|growing roses|f
Tobias Reed|carpenter|the Sawpit|Cinder Lane|apple pie|splinters|building boats|m
Hazel Dunn|shepherd|the North Meadow|Moor Road|wool blankets|wolves|flute music|f
Bram Copper|tinker|the Copper Cart|Moor Road|puzzles|rust|inventing things|m
Agnes Fell|candlemaker|the Wax House|Tallow Street|lavender|wind|stargazing|f
Leopold Grist|miller|the Tide Mill|Moor Road|fresh bread|rats|juggling|m
Mina Sorrel|potter|the Round Kiln|Cinder Lane|clay|earthquakes|swimming|f
Casper Wynn|watchman|the East Gate|Mast Row|night walks|thieves|playing dice|m
Ottilie Gray|glassblower|the Glass House|Cinder Lane|bubbles|hammers|juggling|f
Edmund Pike|netmaker|the Net Loft|Fishgate|salt crisps|knots|rowing|m
Freya Holt|ranger|the Pine Lodge|Moor Road|foxes|traps|archery|f
Rufus Bell|bell ringer|the Bell Tower|Lantern Hill|church music|silence|baking|m
Sabina Cole|merchant|the Spice Chest|Mast Row|pepper|pirates|counting coins|f
Ivo Larch|cook|the Drowned Bell|Mast Row|garlic|empty plates|fishing|m
Dora Minnow|apprentice|Hale's Forge|Cinder Lane|sparks|homework|climbing|f
Percy Wold|gravedigger|the Churchyard|Lantern Hill|snowdrops|ghosts|chess|m
Clara Nook|clockmaker|the Brass Hour|Spindle Court|punctual people|sand|bird watching|f
Anselm Drake|monk|the Abbey|Lantern Hill|cheese|swearing|beekeeping|m
Juno Starling|sailor|the Silver Wren|Gull Point|mangoes|calm seas|dancing|f
Wendell Oakes|farmer|Oakes Farm|Moor Road|pumpkins|hail|playing the drum|m
Greta Flint|guard captain|the Barracks|Mast Row|discipline|excuses|archery|f
Milo Tuck|stable boy|the Stables|Moor Road|ponies|early mornings|racing|m"""
RES = [dict(zip("name job work street likes dislikes hobby g".split(), l.split("|"))) for l in R.split("\n")]
S = """the Crusty Anchor|bakery|Marta Quill|Tallow Street|six|two|rye loaf 4,cinnamon bun 2,seed cake 7,oat biscuit 1
the Silver Scale|fish shop|Tamsin Grey|Fishgate|five|noon|herring 3,smoked eel 9,crab 6,bag of mussels 5
Hale's Forge|forge|Dunstan Hale|Cinder Lane|seven|six|iron nail 1,horseshoe 8,anchor 45,kitchen knife 14
the Green Jar|herb shop|Nella Brook|Spindle Court|nine|five|mint tea 3,cough syrup 11,burn salve 12,dried sage 2
Varn's Cuts|butcher's shop|Hugo Varn|Fishgate|seven|three|pork sausage 4,leg of lamb 22,bacon 6,meat pie 5
the Golden Needle|tailor's shop|Odette Lamb|Spindle Court|ten|six|wool coat 60,linen shirt 25,silk scarf 33,pair of socks 5
the Blue Loom|weaver's shop|Petra Lowe|Spindle Court|eight|four|blanket 28,rug 50,sail cloth 40,tea towel 6
the Wax House|candle shop|Agnes Fell|Tallow Street|nine|four|tall candle 3,lantern 18,lump of soap 2,beeswax 7
the Round Kiln|pottery|Mina Sorrel|Cinder Lane|eight|five|clay mug 5,big bowl 9,flower pot 7,teapot 16
the Spice Chest|spice shop|Sabina Cole|Mast Row|ten|seven|black pepper 10,nutmeg 13,saffron 70,sea salt 2
the Brass Hour|clock shop|Clara Nook|Spindle Court|ten|four|pocket watch 90,wall clock 120,hourglass 20,brass bell 15
the Glass House|glass shop|Ottilie Gray|Cinder Lane|nine|three|glass bottle 4,window pane 19,blue vase 30,spyglass 85"""
SHOPS = []
for l in S.split("\n"):
    n, k, o, st, a, b, it = l.split("|")
    SHOPS.append(
        dict(
            name=n,
            kind=k,
            owner=o,
            street=st,
            opens=a,
            closes=b,
            items=[(x.rsplit(" ", 1)[0], int(x.rsplit(" ", 1)[1])) for x in it.split(",")],
        )
    )
ITEMS = {i: (p, s) for s in SHOPS for i, p in s["items"]}
P = """the Lighthouse|a white tower with a green lamp|at the end of Gull Point|Corwin Teague
the Library|a quiet stone house with four thousand books|on Lantern Hill|Lydia Penrose
the Town Hall|a red brick hall with a tall clock|on Lantern Hill|Rosalind Vane
the Infirmary|a clean white house with twelve beds|on Lantern Hill|Ines Marlow
the Drowned Bell|an old inn with nine rooms and a warm fire|on Mast Row|Bettina Swift
the Harbour Office|a small hut full of charts|on Mast Row|Osric Pell
the Tide Mill|a wooden mill that turns with the tide|on Moor Road|Leopold Grist
the Bell Tower|a square tower with three bells|on Lantern Hill|Rufus Bell
the Old Quarry|a deep pit of grey stone|behind Cinder Lane|Alaric Stone
the Abbey|a silent house of monks and bees|on Lantern Hill|Anselm Drake
the Schoolhouse|a yellow house with a noisy yard|on Lantern Hill|Wilma Crane
the North Meadow|a wide green field with sheep|off Moor Road|Hazel Dunn
the East Gate|a heavy oak gate in the town wall|at the top of Mast Row|Casper Wynn
the Net Loft|a long attic that smells of tar|above Fishgate|Edmund Pike
the Churchyard|a mossy yard with crooked stones|on Lantern Hill|Percy Wold
the Pine Lodge|a log cabin at the edge of the forest|on Moor Road|Freya Holt"""
PLACES = [dict(zip("name desc where keeper".split(), l.split("|"))) for l in P.split("\n")]
E_ = """the Herring Fair|Saturday|Fishgate|noon
the Lantern Walk|Friday|Lantern Hill|dusk
the Boat Race|Sunday|Gull Point|ten
the Fiddle Night|Thursday|the Drowned Bell|eight
the Wool Market|Tuesday|the North Meadow|nine
the Book Hour|Wednesday|the Library|four
the Town Council|Monday|the Town Hall|six
the Bread Feast|Sunday|Tallow Street|noon
the Archery Contest|Saturday|the Barracks|two
the Bell Concert|Friday|the Bell Tower|seven"""
EVENTS = [dict(zip("name day place time".split(), l.split("|"))) for l in E_.split("\n")]
H = """the Silver Wren|Silas Thorne|spices|three|blue
the Little Tern|Fenn Ashby|fish|one|green
the Grey Widow|Ada Storm|coal|five|black
the Merry Otter|Joss Kettle|apples|two|red
the Northern Star|Elias Frost|timber|six|white
the Salt Maiden|Nora Bright|salt|four|yellow"""
SHIPS = [dict(zip("name captain cargo berth colour".split(), l.split("|"))) for l in H.split("\n")]
STREETS = {
    "Tallow Street": "smells of candles and bread",
    "Mast Row": "runs along the harbour wall",
    "Fishgate": "is where the fish is sold",
    "Cinder Lane": "is full of forges and kilns",
    "Lantern Hill": "climbs up to the abbey",
    "Gull Point": "is a rocky cape in the west",
    "Spindle Court": "is a small square of craft shops",
    "Moor Road": "leads north to the farms",
}
# question templates: {subject}; the LAST question template of each list is held out for evaluation
QA = {
    "job": (
        [
            "What does {n} do?",
            "What is {n}'s job?",
            "What does {n} do for a living?",
            "Who is {n}?",
            "What kind of work does {n} do?",
            "Tell me {n}'s trade.",
            "Do you know what {n} does?",
            "How does {n} earn a living?",
        ],
        ["{n} is the {job} of Saltmere.", "{n} is the {job}.", "{n} works as the {job}."],
        ["{job}"],
    ),
    "work": (
        [
            "Where does {n} work?",
            "What is the workplace of {n}?",
            "Tell me where {n} works.",
            "Where is {n} working?",
            "Where can I find {n}?",
            "Where would {n} be during the day?",
            "Which place does {n} work at?",
            "I am looking for {n}. Where should I go?",
            "Where is {n} right now?",
            "At which place should I look for {n}?",
        ],
        ["{n} works at {work}.", "You can find {n} at {work}.", "Go to {work}; {n} works there."],
        ["{work}"],
    ),
    "street": (
        [
            "Where does {n} live?",
            "Where is the house of {n}?",
            "In which street does {n} live?",
            "What is the address of {n}?",
            "Tell me where {n} lives.",
            "{n} lives where?",
            "Which street does {n} live on?",
            "What street is {n}'s house on?",
            "Where is {n}'s home?",
            "On which street do I find {n}'s home?",
        ],
        ["{n} lives on {street}.", "{F} lives on {street}.", "The home of {n} is on {street}."],
        ["{street}"],
    ),
    "likes": (
        [
            "What does {n} like?",
            "What does {n} love?",
            "What does {n} enjoy most?",
            "Which thing does {n} like?",
            "Tell me what {n} likes.",
            "What could I bring to please {n}?",
            "What would be a nice gift for {n}?",
            "What is {n} fond of?",
            "What makes {n} happy?",
            "Is there something {n} loves?",
        ],
        ["{n} likes {likes}.", "{n} is very fond of {likes}.", "{F} loves {likes}."],
        ["{likes}"],
    ),
    "dislikes": (
        [
            "What does {n} dislike?",
            "What does {n} not like?",
            "What is {n} afraid of or annoyed by?",
            "What makes {n} angry?",
            "Tell me what {n} hates.",
            "What should I avoid near {n}?",
            "What can {n} not stand?",
            "What does {n} hate?",
            "What annoys {n}?",
            "Is there something {n} cannot stand?",
            "What should I keep away from {n}?",
        ],
        ["{n} dislikes {dislikes}.", "{n} cannot stand {dislikes}.", "{F} hates {dislikes}."],
        ["{dislikes}"],
    ),
    "hobby": (
        [
            "What is {n}'s hobby?",
            "What is the hobby of {n}?",
            "Which hobby does {n} have?",
            "What does {n} enjoy after work?",
            "Tell me the hobby of {n}.",
            "What does {n} do on free days?",
            "What does {n} do in the evening?",
            "What does {n} do for fun?",
            "How does {n} spend free time?",
            "What is {n}'s favourite pastime?",
        ],
        ["{n}'s hobby is {hobby}.", "{n} enjoys {hobby}.", "In the evening {n} enjoys {hobby}."],
        ["{hobby}"],
    ),
}
JOBQ = (
    [
        "Who is the {job}?",
        "Who is the {job} here?",
        "Do you have a {job} in town?",
        "I need the {job}. Who is it?",
        "What is the name of the {job}?",
        "Who works as the {job} in Saltmere?",
    ],
    ["The {job} is {n}.", "That is {n}, who works at {work}.", "{n} is the {job}."],
)
ITEMQ = {
    "price": (
        [
            "How much is {a}?",
            "What do they ask for {a}?",
            "Tell me the price of {a}.",
            "Is {a} expensive?",
            "What does {a} sell for?",
            "What does {a} cost?",
            "What is the price of {a}?",
            "How many coppers for {a}?",
            "I want to buy {a}. How much is it?",
            "How much would I pay for {a}?",
        ],
        ["{A} costs {p} coppers.", "{A} is {p} coppers at {s}.", "You pay {p} coppers for {a}."],
        ["{p}"],
    ),
    "shop": (
        [
            "Where can I buy {a}?",
            "Where can I get {a}?",
            "Where is {a} sold?",
            "Who has {a} for sale?",
            "I want to buy {a}. Which shop has it?",
            "Who sells {a}?",
            "Which shop sells {a}?",
            "I need {a}. Where should I go?",
            "Where do they sell {a}?",
        ],
        ["You can buy {a} at {s}.", "{o} sells {a} at {s}.", "Try {s} on {st}. They sell {a}."],
        ["{s}"],
    ),
}
SHOPQ = {
    "owner": (
        [
            "Who owns {s}?",
            "Who is the boss of {s}?",
            "To whom does {s} belong?",
            "Tell me the owner of {s}.",
            "Who runs {s}?",
            "Whose shop is {s}?",
            "Who is the owner of {s}?",
        ],
        ["{o} owns {s}.", "{s1} belongs to {o}."],
        ["{o}"],
    ),
    "where": (
        ["Where is {s}?", "On which street is {s}?", "How do I find {s}?", "Which street is {s} on?"],
        ["{s1} is on {st}.", "You will find {s} on {st}."],
        ["{st}"],
    ),
    "opens": (
        [
            "When does {s} open?",
            "How early does {s} open?",
            "Tell me when {s} opens.",
            "What time does {s} open?",
            "At what hour does {s} open?",
            "When do they open {s}?",
        ],
        ["{s1} opens at {opens}.", "It opens at {opens} in the morning."],
        ["{opens}"],
    ),
    "closes": (
        [
            "When does {s} close?",
            "How late is {s} open?",
            "Tell me when {s} closes.",
            "What time does {s} close?",
            "Until when is {s} open?",
            "At what hour does {s} close?",
        ],
        ["{s1} closes at {closes}.", "It is open until {closes}."],
        ["{closes}"],
    ),
    "sells": (
        ["What does {s} sell?", "What can I buy at {s}?", "What do they have at {s}?", "What is for sale at {s}?"],
        ["{s1} sells {list}.", "At {s} you can buy {list}."],
        ["{i0}", "{i3}"],
    ),
}
PLACEQ = {
    "desc": (
        ["What is {p}?", "Tell me about {p}.", "Describe {p}.", "What does {p} look like?"],
        ["{P} is {desc} {where}.", "{P} is {desc}."],
        ["{desc}"],
    ),
    "where": (
        [
            "Where is {p}?",
            "On which street is {p}?",
            "Tell me the way to {p}.",
            "Where does {p} stand?",
            "How do I get to {p}?",
            "Where can I find {p}?",
            "Which way is {p}?",
        ],
        ["{P} is {where}.", "You will find {p} {where}."],
        ["{where}"],
    ),
    "keeper": (
        [
            "Who looks after {p}?",
            "Who is at {p}?",
            "Who takes care of {p}?",
            "Who works at {p}?",
            "Who is in charge of {p}?",
            "Who keeps {p}?",
        ],
        ["{k} looks after {p}.", "{P} is in the care of {k}."],
        ["{k}"],
    ),
}
EVQ = {
    "day": (
        [
            "When is {e}?",
            "Which day is {e}?",
            "On what day do they hold {e}?",
            "Tell me the day of {e}.",
            "On which day is {e}?",
            "What day is {e} held?",
            "Which day should I come for {e}?",
        ],
        ["{E} is on {d}.", "{E} is held every {d} at {t}."],
        ["{d}"],
    ),
    "place": (
        [
            "Where is {e}?",
            "At which place is {e}?",
            "Where does {e} take place?",
            "Where is {e} held?",
            "Where do people meet for {e}?",
            "Where should I go for {e}?",
        ],
        ["{E} is held at {pl}.", "Go to {pl} for {e}."],
        ["{pl}"],
    ),
    "time": (
        [
            "What time does {e} start?",
            "At which hour does {e} start?",
            "When should I be there for {e}?",
            "When does {e} begin?",
            "At what time is {e}?",
            "How early does {e} start?",
        ],
        ["{E} starts at {t}.", "It begins at {t}."],
        ["{t}"],
    ),
}
SHIPQ = {
    "captain": (
        [
            "Who is the captain of {s}?",
            "Which captain does {s} have?",
            "Name the captain of {s}.",
            "Who commands {s}?",
            "Who sails {s}?",
            "Who is in command of {s}?",
        ],
        ["{c} is the captain of {s}.", "{S} sails under {c}."],
        ["{c}"],
    ),
    "cargo": (
        [
            "What does {s} carry?",
            "What is the cargo of {s}?",
            "What is in the hold of {s}?",
            "What cargo is on {s}?",
            "What is {s} loaded with?",
            "What goods does {s} bring?",
        ],
        ["{S} carries {cargo}.", "It is loaded with {cargo}."],
        ["{cargo}"],
    ),
    "berth": (
        [
            "At which berth is {s}?",
            "What is the berth of {s}?",
            "Where is {s}?",
            "Where is {s} moored?",
            "Which berth does {s} use?",
            "Where does {s} lie?",
        ],
        ["{S} lies at berth {b}.", "You find it at berth {b}."],
        ["berth {b}"],
    ),
}
SMALL = [
    (
        ["Hello!", "Hi.", "Hi there!", "Good day.", "Hey!", "Greetings.", "Hello there."],
        [
            "Hello! How can I help you?",
            "Good day! What can I do for you?",
            "Hi! What would you like to know?",
            "Welcome! How may I help?",
        ],
    ),
    (
        ["Good morning.", "Morning!", "Good morning to you."],
        ["Good morning! A fine day by the sea.", "Good morning! What can I do for you?", "Morning! The tide is in early today."],
    ),
    (
        ["Good evening.", "Evening!", "Good evening to you."],
        ["Good evening! The lamps are just being lit.", "Good evening! How can I help?"],
    ),
    (
        ["How are you?", "How are you today?", "How do you do?", "Are you well?", "How is it going?"],
        ["I am well, thank you. And you?", "Very well, thank you.", "Fine, thanks! The sea air helps."],
    ),
    (
        ["I am fine too.", "I am well, thanks.", "Not bad at all.", "Doing great!"],
        ["I am glad to hear it.", "Good! What can I do for you?", "That is good to hear."],
    ),
    (
        ["I am tired.", "I feel sad today.", "I had a bad day.", "I am so sleepy."],
        [
            "I am sorry to hear that. Maybe rest by the fire for a while.",
            "That sounds hard. A cup of mint tea may help.",
            "I hope tomorrow is better. Take a slow walk by the sea.",
        ],
    ),
    (
        ["Thank you!", "Thanks.", "Thanks a lot!", "Many thanks.", "Thank you for the help."],
        ["You are welcome!", "My pleasure.", "Any time.", "Glad to help."],
    ),
    (
        ["Goodbye.", "Bye!", "See you later.", "Farewell.", "I must go now."],
        ["Goodbye! Safe travels.", "See you soon!", "Farewell, and mind the wet stones."],
    ),
    (
        ["What is this town called?", "Which town is this?", "Where am I?", "What is the name of this place?"],
        ["This is Saltmere, a small harbour town.", "You are in Saltmere, by the sea."],
    ),
    (
        ["Tell me about this town.", "What is Saltmere like?", "Describe the town.", "Tell me about Saltmere."],
        [
            "Saltmere is a small harbour town with eight streets, a white lighthouse and a busy fish market.",
            "Saltmere is a quiet town by the sea. People fish, bake, weave and tell stories.",
        ],
    ),
    (
        ["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny."],
        [
            "Why did the crab never share? Because he was a little shellfish.",
            "What does the sea say to the shore? Nothing, it just waves.",
            "Why do gulls fly over the sea? Over the bay they would be bagels.",
        ],
    ),
    (
        ["Tell me a story.", "Do you know a story?", "Can you tell me a short story?"],
        [
            "Once a boy found a bell on the beach. He rang it, and a whale came to listen. They were friends all summer.",
            "A sailor lost her hat in a storm. A year later a gull dropped it on her head.",
            "There was a lamp that never went out. In the worst storm it led nine ships home, and the keeper slept well.",
        ],
    ),
    (
        ["Sing me a song.", "Do you know a song?", "Sing something."],
        [
            "Haul the rope and mind the tide, home is on the other side.",
            "Salt and silver, wind and foam, every boat is sailing home.",
        ],
    ),
    (
        ["What is the weather like?", "How is the weather?", "Is it going to rain?"],
        [
            "I cannot see the sky from here, but Saltmere is often foggy.",
            "I do not know. Ask the harbour master, he watches the sky.",
        ],
    ),
    (
        ["Can you help me?", "Could you help me?", "I need help.", "Please help me.", "Will you help me?", "I need some help.", "Help me."],
        ["Of course. What do you need?", "Yes! What would you like to know?", "Gladly. What can I do for you?"],
    ),
    (
        ["What can you do?", "What can you help me with?", "How can you help me?"],
        [
            "I can talk about Saltmere, use the tools I am given, solve small sums and look things up in your notes.",
            "Ask me about the town, give me tools, or let me read a ledger for you.",
        ],
    ),
    (
        ["Are you a robot?", "Are you human?", "Are you real?", "What are you?"],
        ["I am a very small language model.", "I am only a small language model, but I do my best."],
    ),
    (
        ["Do you like it here?", "Do you like Saltmere?", "Is it nice here?"],
        ["Yes, I like the sound of the sea.", "I do. The bread is good and the people are kind."],
    ),
    (
        ["What should I see first?", "What should I visit?", "Any tips for a visitor?"],
        [
            "Start at the Lighthouse, then eat a cinnamon bun at the Crusty Anchor.",
            "Walk along Mast Row and visit the Library on Lantern Hill.",
        ],
    ),
    (
        ["How many people live here?", "Is this a big town?", "Is Saltmere big?"],
        ["Saltmere is small. I know about forty people here.", "It is a small town. Everyone knows everyone."],
    ),
    (
        ["Is there a king here?", "Who rules the town?", "Who is in charge here?"],
        ["There is no king. Rosalind Vane is the mayor.", "The mayor is Rosalind Vane."],
    ),
    (
        ["What do people eat here?", "What is the local food?", "What should I eat?"],
        ["Smoked eel, rye bread and pork sausages.", "Try the cinnamon buns from the Crusty Anchor."],
    ),
    (
        ["I love you.", "You are nice.", "You are very helpful.", "Good job."],
        ["That is kind of you to say.", "Thank you! You are kind too."],
    ),
    (
        ["You are stupid.", "That is wrong.", "You are not helpful."],
        ["I am sorry. Let me try again.", "I am sorry about that. How can I do better?"],
    ),
    (
        ["Help!", "I need help.", "Can you help me?", "Please help me."],
        ["Of course. What do you need?", "I will try. What is the matter?"],
    ),
    (
        ["I am lost.", "I do not know where to go.", "I lost my way."],
        [
            "Do not worry. Walk down to the harbour and ask Osric Pell, the harbour master.",
            "Follow the sound of the bells to Lantern Hill.",
        ],
    ),
    (
        ["I am hungry.", "Where can I eat?", "I would like to eat something."],
        [
            "Try a meat pie from Varn's Cuts or a bun from the Crusty Anchor.",
            "The Drowned Bell has a warm fire and a good cook, Ivo Larch.",
        ],
    ),
    (
        ["Where can I sleep?", "Is there an inn?", "I need a room for the night."],
        ["The Drowned Bell on Mast Row has nine rooms.", "Ask Bettina Swift at the Drowned Bell."],
    ),
    (
        ["Okay.", "I see.", "Interesting.", "Good to know."],
        ["Is there anything else?", "Ask me if you need more.", "Can I help with anything else?"],
    ),
]

for table in (QA, ITEMQ, SHOPQ, PLACEQ, EVQ, SHIPQ):
    for relation, parts in table.items():
        parts[0][:0] = MORE["PLACE where" if table is PLACEQ and relation == "where" else relation]
JOBQ[0][:0] = MORE["JOBQ"]
