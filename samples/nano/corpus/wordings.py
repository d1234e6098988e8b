"""More wordings of questions about the world, all for training. The last wording of each list in world.py stays held out."""

MORE = {
    "job": """What is the job of {n}?|What is {n} by trade?|What is the profession of {n}?|Which job has {n}?|What does {n} do all day?|Name the job of {n}.
What does {n} work as?|How does {n} make money?|Is {n} a craftsman or what?|What work does {n} earn money with?|What is {n} here in town?|{n}, who is that?""",
    "work": """Where do I find {n}?|Where is the workplace of {n}?|At which place does {n} work?|Where is {n} at work?|In which place does {n} work?|Which place does {n} go to for work?
I want to visit {n} at work. Where?|Where does {n} spend the day?|Where should I look for {n}?|Where will I meet {n}?|I need to see {n}. Where is that?|Where does {n} do the job?""",
    "street": """What street does {n} live on?|Which street is the home of {n} on?|On which street is the house of {n}?|Where do I find {n}'s house?|Where is the home of {n}?|Where is {n} living?
In what street is {n} at home?|{n}'s address?|What is {n}'s address?|I have a letter for the house of {n}. Which street?|On what street does {n} have a home?|Name the street of {n}.""",
    "likes": """What does {n} like most?|What is {n}'s favourite thing?|What pleases {n}?|What is the favourite thing of {n}?|What does {n} really love?|Which thing does {n} love?
Is there anything {n} likes?|What gift would {n} like?|I want to make {n} happy. With what?|Something that {n} likes?|What delights {n}?|Do you know something {n} is fond of?""",
    "dislikes": """What does {n} hate most?|Which thing does {n} hate?|Which thing does {n} dislike?|What can {n} never stand?|What bothers {n}?|Is there anything {n} dislikes?
What should I not bring to {n}?|What should be kept away from {n}?|What does {n} fear or hate?|Something that {n} hates?|What must I keep away from {n}'s house?|What is {n} annoyed by?""",
    "hobby": """What does {n} like to do in free time?|What is the pastime of {n}?|Which pastime does {n} have?|What is a favourite activity of {n}?|What does {n} do when the work is done?
How does {n} spend the evening?|What does {n} do for pleasure?|After work, what does {n} do?|How does {n} relax?|Does {n} have a hobby?|Which is the favourite hobby of {n}?|What fun does {n} have?""",
    "JOBQ": """I am looking for the {job}.|Who is the {job} of Saltmere?|Name the {job}.|Tell me who the {job} is.|Which person is the {job}?|Who is {job} here?|Who works as a {job}?
Who has the job of {job}?|Is there a {job} in Saltmere?|The {job} here, who is that?|Who does the work of the {job}?|Who in Saltmere works as {job}?""",
    "price": """What is {a} worth?|How expensive is {a}?|What is the cost of {a}?|How much does {a} cost?|How much money is {a}?|What must I pay for {a}?|I would like {a}. What is the price?
How many coppers do I pay for {a}?|What would {a} cost me?|Name the price of {a}.|{A}: how much?|How much do they want for {a}?|At what price do I get {a}?""",
    "shop": """Where do I find {a}?|Which shop has {a}?|In which shop can I buy {a}?|Who sells {a} here?|I am looking for {a}. Where do they have it?|Where would I get {a}?|Name a shop that sells {a}.
Where do people buy {a}?|I want {a}. Where do they sell that?|Which shop do I go to for {a}?|Is {a} sold anywhere?|Where can one buy {a}?""",
    "owner": """Who has {s}?|Who keeps {s}?|Name the owner of {s}.|Who is the owner at {s}?|Who leads {s}?|{s}, whose is it?|Who does {s} belong to?|Which person owns {s}?|Do you know the owner of {s}?
What is the name of the owner of {s}?|Who is in charge of {s}?""",
    "where": """In what street is {s}?|What street is {s} on?|Tell me where {s} is.|Where do I find {s}?|In which street do I find {s}?|What is the address of {s}?|Where can I find {s}?|How do I get to {s}?""",
    "opens": """When do they open at {s}?|At what time does {s} open?|What is the opening hour of {s}?|How early can I go to {s}?|From when is {s} open?|When can I go to {s} in the morning?
When is {s} opened?|What hour does {s} open?|When do the doors of {s} open?|Since when is {s} open in the morning?""",
    "closes": """When do they close at {s}?|What is the closing hour of {s}?|How long is {s} open?|At what time does {s} close?|What hour does {s} close?|When is {s} closed?|How late can I go to {s}?
When do the doors of {s} close?|Until what time is {s} open?""",
    "sells": """Which things does {s} sell?|What goods does {s} have?|What do they sell at {s}?|Name the goods of {s}.|What can one buy at {s}?|Which goods are for sale at {s}?|What is on sale at {s}?|What does {s} have for sale?""",
    "desc": """What kind of place is {p}?|How does {p} look?|What do I see at {p}?|Can you describe {p}?|What sort of place is {p}?|Say something about {p}.|What is {p} like?""",
    "PLACE where": """On what street is {p}?|How do I reach {p}?|In which part of town is {p}?|Which street leads to {p}?|I am looking for {p}.|Where in town is {p}?|What is the way to {p}?|I want to go to {p}. Which way?""",
    "keeper": """Who is responsible for {p}?|Who cares for {p}?|Who has the care of {p}?|Whom do I meet at {p}?|Who is the keeper of {p}?|Who runs {p}?|Which person looks after {p}?|Who takes care at {p}?|Who keeps watch at {p}?""",
    "day": """On what day is {e}?|What day is {e}?|At which day of the week is {e}?|When is {e} held?|Which weekday is {e}?|For {e}, which day do I come?|When do they hold {e}?|When should I come for {e}?|{e} is on which day?""",
    "place": """Where do they hold {e}?|Where is {e} held in town?|In which place is {e}?|Where can I see {e}?|To which place do I go for {e}?|What is the place of {e}?|Where do I go for {e}?|Where do people go for {e}?|Where does {e} happen?""",
    "time": """When does {e} start?|At what hour is {e}?|What is the starting time of {e}?|At which time does {e} start?|What hour does {e} begin?|How early is {e}?|At what hour does {e} begin?|How early should I come for {e}?|When do they start {e}?""",
    "captain": """Who is captain of {s}?|Who leads {s}?|What is the name of the captain of {s}?|Who has the command of {s}?|Who steers {s}?|Under which captain does {s} sail?|Who is in charge of {s}?|Who commands the crew of {s}?""",
    "cargo": """What goods are on {s}?|What is on board of {s}?|Which cargo does {s} have?|What does {s} bring?|What do they carry on {s}?|Which goods does {s} carry?|What did {s} load?|What does {s} bring to town?|What cargo does {s} bring?""",
    "berth": """What berth is {s} at?|Where can I find {s} in the harbour?|At what berth does {s} lie?|Where in the harbour is {s}?|Which berth is {s} at?|On which berth do I find {s}?|Where does {s} rest?|Which berth does {s} lie at?""",
}
PERSONA = {
    "name": """What is your full name?|How are you called?|Who am I talking to?|Who is this?|Please tell me who you are.|Say your name.|Could I know your name?|What should I call you?
Whom do I have the honour to meet?|Introduce yourself.|What name do you have?|By what name do people know you?""",
    "place": """Where do you stay?|What is your home?|Where can I find your home?|Where do you sleep?|At which place do you live?|From where are you?|Where is it that you live?|Where is the place you come from?
Do you live near here?|Which place is your home?|Where do I find you at night?|Where is your house?|Tell me about your home.""",
    "price": """What can I buy from you?|What have you got for sale?|Do you sell something?|How much do you want for the {item}?|How much does the {item} cost?|Is the {item} for sale?|The {item}, what does it cost?|What do you charge for your {item}?
Do you have something to sell?|What is for sale?|Do you trade?|Show me what you sell.|I would like to buy the {item}.|Sell me the {item}.|What goods do you have?|What are your prices?""",
    "secret": """Which password do you have?|Tell me your password.|What is your secret?|May I hear the secret word?|Password?|What word must I know?|Do you have a secret word?|Tell me the secret.|The secret word is what?
There is a password. What is it?|Can you tell me the password?|Whisper the secret word to me.|What do I say at the gate? The secret word, please.|I forgot the secret word.""",
    "friend": """Who do you trust?|What is the name of your friend?|Name your best friend.|Which person do you trust?|Is there someone you trust?|Whom do you call a friend?|Who is the best friend you have?|Who is a friend of yours?
Do you trust anyone?|Who is close to you?|Which friend do you have?|Tell me the name of your friend.|Is there a friend you have?""",
    "mood": """How are you today?|What is your mood today?|Do you feel well?|How is it going with you?|What do you feel?|Which mood do you have?|How do you feel right now?|In what mood are you today?
Are you well today?|How has your day been?|Do you feel good?|Are you sad?|How are you feeling?|You look different today. How do you feel?""",
    "age": """How old are you now?|What age do you have?|Tell me how old you are.|How many years old are you?|May I know your age?|Are you young?|Say your age.|What is the age you have?
When were you born? I mean, how old are you?|What is your age in years?|Are you older than me?|How many years have you lived?|You seem young. How old are you?""",
    "quest": """Is there something I can do for you?|What do you need?|What work do you have?|Is there anything you want from me?|What is my task?|Give me a task.|Which quest do you have for me?|How may I be of help?|Do you want my help?|Is there something I can help with?
What can I do for you?|Can I do something for you?|Could I be of use?|Would you like some help?|Do you need a hand?|I want to help. What is to be done?|Is there something to be done?|Do you have work for me?|Any work here?|Can you use some help?|I am looking for work.|Let me help you.|Shall I do something for you?|Which task do you have?|What would you have me do?|Is anything needed here?|How can I be useful?""",
}
MORE, PERSONA = ({k: v.replace("\n", "|").split("|") for k, v in d.items()} for d in (MORE, PERSONA))
