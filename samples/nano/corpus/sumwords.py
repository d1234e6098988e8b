"""More wordings of the sums, all for training: the last wording of each list in sums.py stays held out."""

MORE = {
    "times": """{n} has {a} bags of {b} {t}. How many {t} is that?|{a} boxes hold {b} {t} each. How many {t} are in them?
In each of {a} rooms are {b} {t}. How many {t} are there together?|{n} sells {b} {t} a day. How many {t} in {a} days?
How many {t} are in {a} baskets of {b}?|{a} friends bring {b} {t} each. How many {t} do they bring?|{n} needs {b} {t} for one cake. How many {t} for {a} cakes?
One cart carries {b} {t}. How many {t} do {a} carts carry?|{n} finds {b} {t} in each of {a} drawers. Count the {t}.""",
    "change": """{n} pays {c} coppers for {a} {t} at {b} coppers each. What is the change?|One of the {t} costs {b} coppers. {n} takes {a} and gives {c} coppers. How much comes back?
{n} had {c} coppers and bought {a} {t} for {b} coppers each. What is left?|With {c} coppers {n} buys {a} {t}, {b} coppers each. How many coppers remain?
{n} owns {c} coppers. {a} {t} at {b} coppers each are paid. How many coppers does {n} keep?|The price of the {t} is {b} coppers each. {n} gets {a} and pays with {c}. How much change?
{n} spends coppers on {a} {t} that cost {b} each. Before it were {c} coppers. How many now?|From {c} coppers {n} pays for {a} {t}, {b} coppers each. What remains?
{n} carries {c} coppers to the shop and takes {a} {t} at {b} coppers. How many coppers go home?""",
    "share": """{a} {t} are divided among {b} people. How many {t} does each one get?|{b} children share {a} {t}. How many {t} for each child?
{n} gives {a} {t} to {b} friends, all the same number. How many {t} each?|Divide {a} {t} by {b} people.|{b} people get {a} {t} in equal parts. How many {t} has each?
{n} puts {a} {t} into {b} bags, the same number in each. How many {t} in one bag?|Among {b} sailors {a} {t} are split. How many {t} does one sailor have?
There are {a} {t} for {b} guests. How many {t} can every guest have?|Split {a} {t} into {b} equal parts. How big is a part?|{b} boxes hold {a} {t}, equally many each. How many {t} per box?""",
    "cost": """What is the price of {a} x {i} and 1 x {j} together?|I buy {a} x {i} and 1 x {j}. How much is that?|{a} x {i} plus 1 x {j}: what do I pay?
How many coppers are {a} x {i} and 1 x {j}?|Give me {a} x {i} and 1 x {j}. What does it cost?|I need {a} x {i} and 1 x {j}. How many coppers do I need?
I take {a} x {i} and 1 x {j}. What will I pay?|Add it up: {a} x {i} and 1 x {j}.|What does it cost to buy {a} x {i} and 1 x {j}?""",
    "hour": """{n} leaves at {a} o'clock and walks {b} hours. At which hour does {n} arrive?|The bread is in the oven at {a} o'clock for {b} hours. At which hour is it done?
{b} hours after {a} o'clock, which hour is it?|A play begins at {a} o'clock and takes {b} hours. At which hour does it end?|The clock says {a}. In {b} hours it says what?
{n} sleeps at {a} o'clock for {b} hours. At which hour does {n} wake up?|At {a} o'clock {n} says: back in {b} hours. At which hour is that?""",
    "extreme": """Of {x}, which is the {w}?|Tell me the {w} of these numbers: {x}.|{x}: which number is the {w}?|Which of {x} is the {w} number?
Name the {w} number: {x}.|I have the numbers {x}. What is the {w}?|Look at {x}. Which one is the {w}?|Give me the {w} one of {x}.""",
}
MORE = {k: v.replace("\n", "|").split("|") for k, v in MORE.items()}
