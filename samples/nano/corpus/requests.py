"""More wordings for the known tools of pool.py, all for training: pool.py's own last wording stays the held-out one."""

REQUESTS = dict(
    get_weather="""Weather in {city} on {date}?|What will the weather be in {city} on {date}?|Is it sunny in {city} on {date}?
Tell me the weather of {city} for {date}.|I travel to {city} on {date}. How will the weather be?|Forecast {city} {date}
How warm is it in {city} on {date}?|Do I need an umbrella in {city} on {date}?|{date}, {city}: what is the forecast?
How is the weather in {city}? The date is {date}.|What is the forecast for {date} in {city}?|Check the weather going into {date} for {city}.
On {date} I am in {city}. Will it be cold?""",
    set_timer="""Timer: {minutes} minutes[, {label}].|Count down {minutes} minutes[ for {label}].|Please time {minutes} minutes[ under the name {label}].
Ring in {minutes} minutes[; call it {label}].|Set the timer to {minutes}[ and label it {label}].|{minutes} minutes on the clock please[, labelled {label}].
Remind me after {minutes} minutes[ with label {label}].|Give me a {minutes} minute countdown[, name {label}].
Let me know when {minutes} minutes are over[, {label} is the label].|Start counting {minutes} minutes[. The label is {label}].
I want a timer of {minutes} minutes[ that is called {label}].|Run a timer[ {label}] for {minutes} minutes.""",
    send_message="""Message {to}: {text}.|Text {to} that {text}.|Send {to} this message: {text}.|Say to {to}: {text}.|Send {to} the text {text}.
Please inform {to}: {text}.|I want to write {to}: {text}.|Can you send {to} a message? It is: {text}.|Deliver this to {to}: {text}.
{to} should know this: {text}.|Give {to} a message from me: {text}.|Drop {to} a line: {text}.|Let {to} hear from me: {text}.""",
    get_price="""How much does {item} cost in the system?|Get the price of {item}.|I need the price of {item}.|Price of {item} please.
Find out what {item} costs.|Look up {item} and tell me the price.|What is the current price of {item}?|Check how much {item} is now.
Can you check the cost of {item}?|Tell me the system's price for {item}.|price check: {item}|Ask the shop system about {item}.
Please look up what {item} costs.""",
    give_item="""Give the player {count} {item}.|I want {count} of {item}.|Please hand over {item}, {count} of them.|Pass me {count} x {item}.
Could I get {count} {item}?|I will take {item}, {count} pieces.|Bring {count} of the {item}.|Let me have {count} {item}.|{count} x {item}, please.
I need the {item}. {count} of them.|The player gets {item}, count {count}.|Hand out {count} pieces of {item}.|Hand me {count} pieces of the {item}.""",
    move_to="""Walk over to {place}[, run: {run}].|Let us go to {place}[ with run = {run}].|Head to {place}[; run {run}].|Meet me at {place}[ (run {run})].
Make your way to {place}[, running {run}].|Move yourself to {place}[, and run is {run}].|Your goal is {place}[. Run: {run}].
Can you go to {place}[ and set run {run}]?|Travel to {place}[, run set to {run}].|Please come over to {place}[ with run {run}].
I want you at {place}[, run: {run}].|Come with me to {place}[, set run to {run}].|Go on to {place}[ and run: {run}].""",
    add_event="""New event {title} on {date}, {time}[, guests: {guests}].|Create an entry for {title}, {date} at {time}[, inviting {guests}].
Calendar: {title}, {date}, {time}[, {guests}].|Remember {title} on {date} at {time}[. {guests} will come].|Note down {title} for {date}, {time}[ with {guests}].
I have {title} on {date} at {time}[ together with {guests}].|Book {title} in the calendar on {date} at {time}[ and invite {guests}].
Make a calendar entry: {title}, {date}, {time}[. Guests: {guests}].|Plan {title} on {date} at {time}[ with guests {guests}].
Set up {title}. The date is {date}, the time {time}[, and with me come {guests}].|Please enter {title}, {date}, {time}[, guests {guests}].
On {date} at {time} there is {title}[ with {guests}].""",
    set_light="""Set the light of the {room}: on {on}[, brightness {level}].|Change the {room} light to on {on}[ and level {level}].
{room}: light {on}[, level {level}].|Please switch the {room} lamp, on {on}[, brightness {level}].|The lamp in the {room} should be on: {on}[ with level {level}].
Control the light in the {room}: on is {on}[, level is {level}].|In the {room}, set on to {on}[ and the level to {level}].
Turn the {room} lamp: {on}[, brightness {level}].|I want the {room} light on = {on}[ at level {level}].|Lamp {room}, on {on}[, {level}].
Adjust the light for the {room}: on {on}[ and brightness {level}].|Light on {on} in the {room}[, brightness {level}].""",
    convert="""What is {amount} {source} in {target}?|Exchange {amount} {source} to {target}.|Turn {amount} {source} into {target}.
{amount} {source} to {target}|How many {target} do I get for {amount} {source}?|Please convert {amount} {source} into {target}.
Give me {amount} {source} in {target}.|I need {target} for {amount} {source}.|I want {target} and I have {amount} {source}.
What are {amount} {source} worth in {target}?|Swap {amount} {source} for {target}.|Calculate {amount} {source} in {target}.
I own {amount} {source}. How much {target} is that?""",
    search_notes="""Find {query} in my notes[, limit {limit}].|Search notes: {query}[, max {limit}].|Do I have a note on {query}[? Show {limit}]
Which note mentions {query}[, limit {limit}]?|Look for {query} in the notes[, at most {limit} results].|Show my notes about {query}[, up to {limit}].
I need my notes on {query}[ (at most {limit})].|Look up {query} in my notes[, {limit} at most].|Check my notes for {query}[ and limit it to {limit}].
Get the notes with {query}[ and a limit of {limit}].|Go through my notes and find {query}[, limit: {limit}].|Where did I note {query}[, limit {limit}]?""",
    play_song="""Play the song {title}[ by {artist}].|I would like to listen to {title}[ from {artist}].|Music: {title}[, {artist}].
Please play {title}[, the artist is {artist}].|Can you put on {title}[ by {artist}]?|Let me hear {title}[ by {artist}].|Turn on {title}[ of {artist}].
Next song: {title}[, by {artist}].|Start {title}[ by {artist}].|Start the music: {title}[, artist: {artist}].|I love the track {title}[ by {artist}]. Play it.
Play me something: {title}[ from the artist {artist}].""",
    open_door="""Unlock the {door}. The code is {code}.|Open the {door} with code {code}.|Enter {code} at the {door}.|Please open the {door}: {code}.
The code for the {door} is {code}. Open it.|Let me through the {door}, code {code}.|Use code {code} on the {door}.|Try {code} on the {door}.
I want to open the {door}. My code is {code}.|{door}, {code}, open please.|Can you unlock the {door} using {code}?|Take {code} and open the {door}.""",
    start_quest="""Start {quest} on level {level}.|I want to do {quest}, level {level}.|Begin the quest {quest} with difficulty {level}.
Quest: {quest}, level: {level}.|Let us start {quest} at difficulty {level}.|Give me {quest} on level {level}.|I take {quest} at level {level}.
Sign me up for {quest}, level {level}.|Play {quest} with level {level}.|Let me try {quest}. Level {level}.|Launch {quest}, difficulty level {level}.
I would like to play {quest} on difficulty {level}.""",
    get_time="""What is the time in {timezone}?|How late is it in {timezone}?|Time in {timezone} please.|Get the time of {timezone}.
Tell me how late it is in {timezone}.|What does the clock say in {timezone}?|What is the current time in {timezone}?|The time for {timezone}?
I need the local time of {timezone}.|Clock of {timezone}?|Which time is it in {timezone}?|What time do they have in {timezone} now?""",
    book_table="""Book {place} for {people} at {time}.|I want a table at {place} at {time} for {people}.|Table for {people} at {time} in {place}.
Please reserve a table at {place}: {people} guests at {time}.|We want to eat at {place}, {people} people, {time}.|Get us a table at {place}, {time}, {people} guests.
{place}, {time}, {people} people. Book it.|Reserve for {people} at {place}, time {time}.|There are {people} of us and we come to {place} at {time}.
Can you book {place} at {time} for {people} guests?|Dinner at {place} for {people} at {time}.|At {time} we are {people} at {place}. Book a table.""",
    track_order="""Track order {order}.|Order {order}: where is it?|Find out where {order} is.|What about my order {order}?|When does {order} arrive?
Check order number {order}.|Please look for my parcel {order}.|Did {order} leave?|Is order {order} on its way yet?|I am waiting for {order}.
Follow the parcel {order}.|Tell me the state of {order}.|How far is order {order}?""",
)
REQUESTS = {name: text.replace("\n", "|").split("|") for name, text in REQUESTS.items()}
