"""The known tools: sixteen whose names, parameters and wordings are seen in training (values of arguments are held out)."""

from corpus import world
from corpus.requests import REQUESTS
from corpus.source import Source
from corpus.words import THINGS, WORDS

# name, descriptions, parameters (name, type, description, maker, optional), requests, results (key, maker), answers
POOL = [
    (
        "get_weather",
        ["Get the weather for a city and date", "Look up the forecast"],
        [
            ("city", "string", "The city name", lambda g: g.city(), 0),
            ("date", "string", "The date in YYYY-MM-DD format", Source.date, 0),
        ],
        [
            "What is the weather in {city} on {date}?",
            "Will it rain in {city} on {date}?",
            "Give me the forecast for {city}, {date}.",
            "How is the weather going to be in {city} on {date}?",
        ],
        [("sky", lambda g: g.c("sunny cloudy rainy windy foggy snowy".split())), ("temperature", lambda g: g.n(-9, 38))],
        ["It will be {sky} in {city}, {temperature} degrees.", "In {city} expect {sky} weather and {temperature} degrees."],
    ),
    (
        "set_timer",
        ["Start a countdown timer", "Set a timer"],
        [
            ("minutes", "integer", "Length in minutes", lambda g: g.split(lambda: g.n(1, 180)), 0),
            ("label", "string", "Name of the timer", lambda g: g.c(WORDS) if not g.ho and g.p(0.4) else g.syl(), 1),
        ],
        [
            "Set a timer for {minutes} minutes[ called {label}].",
            "Wake me in {minutes} minutes[, name it {label}].",
            "Start a {minutes} minute timer[ with the name {label}].",
            "I need a countdown of {minutes} minutes[ labelled {label}].",
        ],
        [("timer_id", Source.code)],
        ["The timer is set, its id is {timer_id}.", "Done. Timer {timer_id} is running."],
    ),
    (
        "send_message",
        ["Send a message to a person", "Deliver a text message"],
        [
            ("to", "string", "Who receives it", Source.person, 0),
            (
                "text",
                "string",
                "The message text",
                lambda g: (
                    g.c(["I am late", "dinner is ready", "call me", "the ship is here", "bring bread", "meet me at noon"])
                    if not g.ho and g.p(0.4)
                    else "bring the " + g.two().replace("-", " ")
                ),
                0,
            ),
        ],
        ["Tell {to}: {text}.", "Send a message to {to} saying: {text}.", "Write to {to}: {text}.", "Let {to} know this: {text}."],
        [("status", lambda g: g.c(["sent", "delivered", "queued"]))],
        ["The message to {to} was {status}.", "Your message to {to} is {status}."],
    ),
    (
        "get_price",
        ["Get the price of an item", "Look up what an item costs"],
        [
            (
                "item",
                "string",
                "The item name",
                lambda g: g.c(list(world.ITEMS)) if not g.ho and g.p(0.4) else g.c(WORDS) + " " + g.syl(),
                0,
            )
        ],
        [
            "Look up the price of {item}.",
            "What does the shop system say for {item}?",
            "Check the current price: {item}.",
            "Please check what {item} costs now.",
        ],
        [("price", lambda g: g.n(1, 999)), ("currency", lambda g: g.c(["coppers", "euros", "crowns", "dollars"]))],
        ["{item} costs {price} {currency}.", "The price of {item} is {price} {currency}."],
    ),
    (
        "give_item",
        ["Give an item to the player", "Hand items over to the player"],
        [
            (
                "item",
                "string",
                "Item name",
                lambda g: (
                    g.c(["sword", "potion", "map", "rope", "lamp", "cloak", "shield", "key"])
                    if not g.ho and g.p(0.4)
                    else g.syl()
                ),
                0,
            ),
            ("count", "integer", "How many", lambda g: g.split(lambda: g.n(1, 60)), 0),
        ],
        [
            "Give me {count} of the item {item}.",
            "Can I have the {item}, {count} pieces?",
            "I would like {count} x {item}.",
            "Hand me the {item}, {count} of them.",
        ],
        [("left", lambda g: g.n(0, 99))],
        ["Here you are: {count} x {item}. I have {left} left.", "Take it. {left} are left."],
    ),
    (
        "move_to",
        ["Walk to a place", "Move the character to a location"],
        [
            (
                "place",
                "string",
                "Where to go",
                lambda g: g.c(world.PLACES)["name"] if not g.ho and g.p(0.4) else "the " + g.syl() + " gate",
                0,
            ),
            ("run", "boolean", "Run instead of walking", lambda g: g.p(0.5), 1),
        ],
        [
            "Go to {place}[ (run: {run})].",
            "Please walk to {place}[, run {run}].",
            "Move to {place}[ with run set to {run}].",
            "Come to {place}[ and set run to {run}].",
        ],
        [("arrived", lambda g: g.p(0.8)), ("seconds", lambda g: g.n(2, 300))],
        ["I need {seconds} seconds to reach {place}.", "On my way to {place}, {seconds} seconds."],
    ),
    (
        "add_event",
        ["Add an event to the calendar", "Create a calendar entry"],
        [
            (
                "title",
                "string",
                "Event title",
                lambda g: (
                    g.c(["dinner", "choir", "dentist", "boat trip", "market", "lesson"])
                    if not g.ho and g.p(0.4)
                    else g.syl() + " party"
                ),
                0,
            ),
            ("date", "string", "Day in YYYY-MM-DD", Source.date, 0),
            ("time", "string", "Start time HH:MM", Source.clock, 0),
            ("guests", "array", "Guest names", lambda g: [g.person() for _ in range(g.n(1, 3))], 1),
        ],
        [
            "Add {title} on {date} at {time}[ with {guests}].",
            "Put {title} in my calendar: {date}, {time}[, guests {guests}].",
            "Schedule {title} for {date} at {time}[ and invite {guests}].",
            "Please plan {title}, date {date}, time {time}[, together with {guests}].",
        ],
        [("event_id", Source.code)],
        ["{title} is in the calendar as {event_id}.", "Done, the entry is {event_id}."],
    ),
    (
        "set_light",
        ["Control a lamp", "Change the light in a room"],
        [
            (
                "room",
                "string",
                "Room name",
                lambda g: (
                    g.c(["kitchen", "hall", "bedroom", "cellar", "attic", "bathroom"])
                    if not g.ho and g.p(0.4)
                    else g.c(WORDS) + " room"
                ),
                0,
            ),
            ("on", "boolean", "Whether the light is on", lambda g: g.p(0.5), 0),
            ("level", "number", "Brightness from 0 to 1", lambda g: g.n(1, 9) / 10, 1),
        ],
        [
            "Set the {room} light, on: {on}[, level {level}].",
            "Light in the {room}: on {on}[ at {level}].",
            "Switch the lamp of the {room}, on = {on}[ and brightness {level}].",
            "For the {room}: light on {on}[ with brightness {level}].",
        ],
        [("ok", lambda g: True), ("watts", lambda g: g.n(1, 90))],
        ["The {room} light is set and uses {watts} watts.", "Done, {watts} watts in the {room}."],
    ),
    (
        "convert",
        ["Convert money from one currency to another", "Exchange currencies"],
        [
            ("amount", "number", "Amount of money", lambda g: g.split(lambda: g.n(1, 999) if g.p(0.6) else g.n(10, 999) / 10), 0),
            ("source", "string", "Currency to convert from", lambda g: g.c("EUR USD GBP JPY CHF SEK".split()), 0),
            ("target", "string", "Currency to convert to", lambda g: g.c("NOK CAD AUD INR BRL PLN".split()), 0),
        ],
        [
            "Convert {amount} {source} to {target}.",
            "How much is {amount} {source} in {target}?",
            "Change {amount} {source} into {target}.",
            "I have {amount} {source} and want {target}.",
        ],
        [("result", lambda g: g.n(10, 9999) / 10)],
        ["{amount} {source} is {result} {target}.", "That makes {result} {target}."],
    ),
    (
        "search_notes",
        ["Search the user's notes", "Find notes by words"],
        [
            ("query", "string", "Words to look for", lambda g: g.two().replace("-", " "), 0),
            ("limit", "integer", "Maximum number of notes", lambda g: g.n(1, 20), 1),
        ],
        [
            "Search my notes for {query}[, at most {limit}].",
            "Find the note about {query}[ (limit {limit})].",
            "What did I write about {query}[, show {limit}]?",
            "Look in my notes for {query}[ with a limit of {limit}].",
        ],
        [("note", lambda g: g.c(["buy", "call", "visit", "paint", "find"]) + " " + g.c(WORDS) + " " + g.c(THINGS))],
        ["Your note says: {note}.", "I found this note: {note}."],
    ),
    (
        "play_song",
        ["Play a song", "Start music"],
        [
            ("title", "string", "Song title", lambda g: g.two().replace("-", " "), 0),
            ("artist", "string", "Name of the artist", Source.person, 1),
        ],
        [
            "Play {title}[ by {artist}].",
            "Put on the song {title}[ from {artist}].",
            "I want to hear {title}[ by {artist}].",
            "Start the track {title}[, artist {artist}].",
        ],
        [("length", lambda g: "%d:%02d" % (g.n(1, 6), g.n(0, 59)))],
        ["Now playing {title}, {length} long.", "Playing {title} ({length})."],
    ),
    (
        "open_door",
        ["Open a door with a code", "Unlock a door"],
        [
            (
                "door",
                "string",
                "Which door",
                lambda g: (
                    g.c(["north door", "cellar door", "iron gate", "tower door", "back door"])
                    if not g.ho and g.p(0.4)
                    else g.syl() + " door"
                ),
                0,
            ),
            ("code", "string", "The door code", lambda g: str(g.num(4)), 0),
        ],
        [
            "Open the {door}, the code is {code}.",
            "Unlock the {door} with {code}.",
            "The {door} please, code {code}.",
            "Use {code} to open the {door}.",
        ],
        [("state", lambda g: g.c(["open", "jammed", "locked"]))],
        ["The {door} is {state}.", "It is {state} now."],
    ),
    (
        "start_quest",
        ["Start a quest for the player", "Begin a quest"],
        [
            (
                "quest",
                "string",
                "Quest name",
                lambda g: "the " + g.c(WORDS) + " " + g.c(["hunt", "ring", "road", "ghost", "feast"]),
                0,
            ),
            ("level", "integer", "Difficulty level", lambda g: g.split(lambda: g.n(1, 50)), 0),
        ],
        [
            "Start the quest called {quest} at level {level}.",
            "I accept {quest}, level {level}.",
            "Begin {quest}, difficulty {level}.",
            "Let me play {quest} on level {level}.",
        ],
        [("reward", lambda g: g.n(5, 5000))],
        ["The quest has begun. The reward is {reward} coins.", "Good luck! You can earn {reward} coins."],
    ),
    (
        "get_time",
        ["Get the current time in a timezone", "Tell the time of a place"],
        [("timezone", "string", "The timezone", lambda g: g.c(["Europe", "Asia", "America", "Africa"]) + "/" + (g.city()), 0)],
        [
            "What time is it in {timezone}?",
            "Current time for {timezone}?",
            "Tell me the time in {timezone}.",
            "Which time do they have in {timezone}?",
        ],
        [("time", Source.clock)],
        ["It is {time} in {timezone}.", "The time there is {time}."],
    ),
    (
        "book_table",
        ["Book a table in a restaurant", "Reserve a table"],
        [
            (
                "place",
                "string",
                "Restaurant name",
                lambda g: "the " + g.c(WORDS).capitalize() + " " + g.c(["Inn", "Spoon", "Table", "Grill"]),
                0,
            ),
            ("people", "integer", "Number of guests", lambda g: g.split(lambda: g.n(1, 40)), 0),
            ("time", "string", "Time HH:MM", Source.clock, 0),
        ],
        [
            "Book a table at {place} for {people} people at {time}.",
            "Reserve {place}, {people} guests, {time}.",
            "A table for {people} at {place}, {time} please.",
            "We are {people} and want to eat at {place} at {time}.",
        ],
        [("confirmation", Source.code)],
        ["Your table is booked, the confirmation is {confirmation}.", "Booked. Code {confirmation}."],
    ),
    (
        "track_order",
        ["Track an order by its number", "Find out where a parcel is"],
        [("order", "string", "Order number", Source.code, 0)],
        ["Where is my order {order}?", "Track {order}.", "What is the state of order {order}?", "Has {order} left yet?"],
        [("state", lambda g: g.c(["packed", "on the road", "delivered", "lost", "waiting"])), ("days", lambda g: g.n(0, 20))],
        ["Order {order} is {state}, {days} days to go.", "It is {state}; {days} days left."],
    ),
]
POOL = [(*spec[:3], REQUESTS[spec[0]] + spec[3], *spec[4:]) for spec in POOL]
KNOWN = {spec[0] for spec in POOL}
