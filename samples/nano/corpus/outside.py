"""Questions about what is outside the generator's world. The only right answer is: I do not know."""

from corpus import world
from corpus.source import an, cap, fill
from corpus.wordings import MORE
from corpus.words import CITY, COMMON, COUNTRY, FIRST, LAST, NOUNS, WORDS

TOPICS = """quantum physics|rockets|football|Mars|chess|history|classical music|electricity|pizza|computers|money|love|dinosaurs
volcanoes|elections|phones|movies|robots|atoms|cars|airplanes|gravity|biology|tennis|poetry|banks|black holes|the moon|the sun
the internet|Python|Java|C++|machine learning|evolution|democracy|the stock market|inflation|DNA|vaccines|photosynthesis
the Roman Empire|World War Two|the French Revolution|the Pyramids|Shakespeare|Einstein|Newton|Mozart|Picasso|Napoleon|the Beatles
the Olympic Games|the World Cup|basketball|baseball|cricket|golf|yoga|meditation|philosophy|psychology|economics|chemistry
algebra|calculus|geometry|statistics|astronomy|geology|medicine|cancer|the heart|the brain|diabetes|nutrition|climate change
solar energy|nuclear power|batteries|bitcoin|blockchain|artificial intelligence|neural networks|databases|Linux|Windows|Google
Amazon|Netflix|YouTube|Facebook|Tesla|Apple|Microsoft|Harry Potter|Star Wars|video games|anime|opera|jazz|rock music|ballet
the Eiffel Tower|the Great Wall|the Amazon river|Mount Everest|the Sahara|the Pacific Ocean|Antarctica|penguins|elephants|lions
sharks in the Pacific|whales|bees in winter|spiders|snakes|the Bible|Buddhism|Islam|the Pope|the president|the queen of England
sushi|tacos|lasagna|chocolate cake|wine making|beer brewing|knitting patterns|plumbing|car engines|tax law|mortgages|visas
airline tickets|hotels in Spain|trains in Japan|the weather on Mars|time travel|wormholes|string theory|relativity|thermodynamics
magnetism|lasers|telescopes|microscopes|semiconductors|compilers|operating systems|cryptography|sorting algorithms|web design
marketing|startups|management|Greek mythology|vikings|samurai|knights of old|the Cold War|the moon landing|slavery|feminism""".replace(
    "\n", "|"
).split(
    "|"
)
PLACES = "the United States|America|Europe|Asia|Africa|the world|California|Texas|New York|the Soviet Union|Rome|Egypt".split("|")
FAMOUS = """Albert Einstein|Isaac Newton|Marie Curie|Leonardo da Vinci|William Shakespeare|Abraham Lincoln|George Washington|Cleopatra
Julius Caesar|Charles Darwin|Elvis Presley|Michael Jackson|Taylor Swift|Barack Obama|Donald Trump|Elon Musk|Bill Gates|Steve Jobs
Lionel Messi|Cristiano Ronaldo|Roger Federer|Beethoven|Mozart|Picasso|Van Gogh|Gandhi|Nelson Mandela|Churchill|Stalin|Aristotle
Plato|Socrates|Galileo|Tesla|Edison|Madonna|Beyonce|Tom Hanks|Brad Pitt|Hitchcock|Tolkien|Agatha Christie|Jane Austen""".replace(
    "\n", "|"
).split(
    "|"
)
LANGUAGES = "French German Spanish Italian Japanese Chinese Russian Latin Greek Arabic Hindi Korean Portuguese Dutch".split()
CODE = "Python Java C++ JavaScript Rust Go C Ruby SQL HTML PHP Swift Haskell Bash".split()
JOBS = """president king queen prime minister chancellor emperor pope champion richest man fastest runner tallest man best singer
oldest person""".replace("\n", " ").split()
TEMPLATES = {
    "topic": """Explain {t}.|Explain {t} to me.|What is {t}?|What are {t}?|Tell me about {t}.|How does {t} work?|How do {t} work?
What do you know about {t}?|Who invented {t}?|Why is {t} so famous?|When did {t} begin?|Give me a summary of {t}.|Teach me {t}.
Write an essay about {t}.|Write a poem about {t}.|I want to learn about {t}.|What is the history of {t}?|Can you explain {t}?
Describe {t} in detail.|What do you think about {t}?|Is {t} dangerous?|Are {t} dangerous?|How old is {t}?|Who discovered {t}?
What is the best book about {t}?|I have an exam on {t}. Help me.|Define {t}.|What causes {t}?|Give me three facts about {t}.
Why do people like {t}?|What are the main ideas of {t}?|Do you understand {t}?|Talk to me about {t}.|What is new in {t}?
What is the meaning of {t}?|How can I study {t}?|What is your opinion on {t}?|Compare {t} and {u}.|What links {t} to {u}?
Is {t} better than {u}?|Should I choose {t} or {u}?|Do you prefer {t} or {u}?|{t} or {u}?|Do {t} and {u} differ?|What is better than {t}?
Which do you like more, {u} or {t}?|Which one is older, {t} or {u}?|Which is more important: {t} or {u}?|What matters most about {t}?
Have you heard of {t}?|{t}: what is that?|Anything about {t}?|I read about {t} today. Explain it.|Why does {t} exist?|What is {t} made of?
Which is better, {t} or {u}?""",
    "country": """What is the capital of {c}?|What is {c}'s capital city?|How many people live in {c}?|Where is {c}?|Who rules {c}?
Who is the president of {c}?|Who is the king of {c}?|What language do they speak in {c}?|What is the population of {c}?
How big is {c}?|What currency does {c} use?|Tell me about {c}.|How do I travel to {c}?|What is {c} famous for?|Is {c} near {e}?
What is the flag of {c}?|What is the largest city in {c}?|What is the highest mountain in {c}?|What river flows through {c}?
Have you been to {c}?|What should I see in {c}?|What do people eat in {c}?|When did {c} become independent?|How far is {c}?
What is the weather in {c}?|How far is it from {c} to {e}?|Which countries border {c}?|Name the capital of {c}.
{c}: what is the capital?|The capital city of {c}, please.|population of {c}?|president of {c}?|currency of {c}?|The language of {c}?|flag of {c}?
Which city is the capital of {c}?|Tell me the capital of {c}.|Weather in {c}?|The king of {c}?|Size of {c}?|map of {c}?|Is {c} a country?
capital of {c}?""",
    "person": """Who is {p}?|Who was {p}?|When was {p} born?|Where was {p} born?|Tell me about {p}.|What did {p} do?
Why is {p} famous?|How old is {p}?|When did {p} die?|What is {p} known for?|Did {p} marry?|How rich is {p}?|What did {p} write?
Do you know {p}?|Have you heard of {p}?|Where does {p} live?|Is {p} still alive?|What made {p} famous?|What is the wife of {p} called?
What is the age of {p}?|What is the birthday of {p}?|What is the home town of {p}?|What is the best work of {p}?|What was the job of {p}'s father?
The job of {p}?|What are the books of {p}?|What is the name of {p}'s dog?|What jobs did {p} have?|What is the job of {p}?""",
    "task": """Write a function in {k} that sorts a list.|Write a {k} program.|How do I write a loop in {k}?|Fix my {k} code.
Translate {w} into {l}.|How do you say {w} in {l}?|What does {w} mean in {l}?|What is {w} in {l}?|Teach me some {l}.
Write code for {aw} in {k}.|What is the difference between {k} and {m}?|Is {k} better than {m}?|Debug this {k} script.
How do I install {k}?|Do you know {k}?|Can you write {k}?|Do you understand {k} code?|Is {k} hard to learn?|Can you teach me {k}?
Can you translate {w} into {l}?|Do you speak {l}?|Can you read {l}?|Write a class for {aw} in {k}.|Convert this from {k} to {m}.|Translate this sentence into {l}.
Can you speak {l}?|Can you program in {k}?""",
    "world": """Who won the {n} world cup?|Who won the election in {n}?|What happened in {n}?|What is the news today?|Who is the {j} of the world?
What is the square root of {n}?|What is the speed of light?|How far is the moon?|How many planets are there?|Why is the sky blue?
Who wrote Hamlet?|What is the boiling point of water?|How tall is Mount Everest?|What is the chemical symbol of gold?
What is the price of bitcoin?|What is the meaning of life?|How do I cook {w}?|How do I make {w}?|What is the recipe for {w}?
How do I repair {aw}?|Where can I download {w}?|What is the best phone?|Which car should I buy?|How do I lose weight?
What film should I watch?|Recommend a book.|Who painted the Mona Lisa?|Who sang {w}?|What is the longest river?
How many bones are in the body?|What is the atomic number of iron?|When did the war end?|Who was the first man on the moon?
What is the fastest animal?|What is the largest ocean?|How many continents are there?|How does {aw} work?|Who invented the {w}?
What is the scientific name of the {w}?|How much does {aw} weigh?|Why does the {w} exist?|Where do {w} come from?
What is the stock price of {w}?|What is pi?|How deep is the ocean?|How hot is the sun?|Who is the CEO of {w}?|When was {w} founded?
Should I invest in {w}?|Is {w} good for my health?|Can you book a flight to {c}?|What is the number of {w} in the world?|What is the size of {aw}?
What is the colour of {aw} on Mars?|What is the website of {w}?|What is the email of {w}?|How do I call {w}?|Which company makes {w}?|Where is the factory of {w}?
What is the phone number of {w}?""",
}
TEMPLATES = {k: v.replace("\n", "|").split("|") for k, v in TEMPLATES.items()}
# What is asked about shops, places, events and ships, asked about some that are not there.
INVENTED = [t.replace("{p}", "{x}").replace("{s}", "{x}").replace("{e}", "{x}")
            for k in ("owner", "where", "opens", "closes", "sells", "desc", "PLACE where", "keeper", "day", "place", "time", "captain", "berth")
            for t in MORE[k]]  # fmt: skip
KNOWN = {row["name"] for table in (world.SHOPS, world.PLACES, world.EVENTS, world.SHIPS) for row in table}
# What is asked about the residents, asked about people who are none; without the wording that is held out here.
STRANGERS = [t.replace("{n}", "{p}") for k in ("job", "work", "street", "likes", "dislikes", "hobby") for t in MORE[k]]
STRANGERS = [t for t in STRANGERS if t != TEMPLATES["person"][-1]]
ANSWERS = [
    "I do not know that. I only know Saltmere.",
    "Sorry, I do not know about that.",
    "I do not know. I only know this town.",
    "I do not know that.",
    "I am afraid I do not know that. Ask me about Saltmere.",
]


def question(g):
    """-> question, answer, strings the answer must hold, thought"""
    kind = g.c(["topic", "topic", "country", "person", "task", "world", "world"] + ([] if g.ho else ["person", "person", "invented"]))

    def held(options):
        return g.split(lambda: g.c(options))

    word = lambda: held(NOUNS + COMMON + WORDS) if g.p(0.8) else g.syl()
    topic = lambda: held(TOPICS) if g.p(0.75) else g.c([word() + "s", "the " + word() + " " + word(), word(), g.Name()])
    def invented():
        name = "the " + cap(g.c(WORDS)) + " " + g.split(lambda: cap(g.c(NOUNS + WORDS)))
        return invented() if name in KNOWN else name

    w = word()
    fields = dict(
        t=topic(), u=topic(), c=g.split(lambda: g.c(COUNTRY + COUNTRY + PLACES + CITY)) if g.p(0.85) else g.Name(), e=g.c(COUNTRY),
        p=held(FAMOUS) if g.p(0.5) else g.split(lambda: g.c(FIRST) + " " + g.c(LAST)), n=g.n(1500, 2030),
        l=g.c(LANGUAGES), k=g.c(CODE), m=g.c(CODE), w=w, aw=an(w), j=g.c(JOBS), x=invented(),
    )  # fmt: skip
    if kind == "invented":
        template = g.c(INVENTED)
    else:
        template = g.c(STRANGERS) if kind == "person" and not g.ho and g.p(0.6) else g.t(TEMPLATES[kind])
    q = fill(template, fields)
    return (
        cap(q),
        g.c(ANSWERS),
        ["not know"],
        g.c(["That is not about Saltmere. I do not know it.", "This is outside what I know."]),
    )
