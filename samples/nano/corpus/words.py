"""Vocabulary of the generator: real words, names and places, and the syllables of invented ones."""

SYLLABLES = """ba be bo bra bri cal cor da del dor el en fa fen fir ga gor hal hen il jo ka kel kir la lin lo mar mel mo
mun na nel nor ol or pa pel pir qua ra ren rin ro sa sel sen sol ta tam tel tor ul va vel ver vin wa wen wil xa yor za zel
zin""".split()
WORDS = """amber apple arrow ash barley basil beacon birch blue bottle brass bread brook cedar chalk clay cliff clover
cobalt copper coral cotton crown dawn delta drum dust eagle ember fable falcon fern field flint forest fox frost garden
glass gold granite grape grove harbor hazel heron honey ivory ivy jade juniper kettle lantern lemon lily linen lotus maple
marble meadow mint mirror moon moss needle night north oak ocean olive onyx orchid otter owl paper pearl pepper pine plum
pond poppy prism quartz quill rain raven reed river robin rose ruby saffron sage salt sand scarlet shadow silver sky slate
snow spruce star stone storm summer swan thistle thunder tiger timber topaz tulip velvet violet walnut water willow wind
winter wolf wren yarrow zephyr""".split()
FIRST = """Ada Ben Cleo Dan Eva Finn Gus Hope Iris Jack Kate Leo Maya Ned Olga Paul Rita Sam Tess Uma Vic Wade Xena Yuri
Zoe Anna Bob Carl Dina Ella Fred Gina Hans Ida Jim Kim Lars Mia Nils Otto Pia Ron Sue Tom Una Val Will Ann Max Liz Alice
John Mary Peter James Linda Robert Susan David Emma Oliver Sofia Lucas Noah Amelia Henry Grace Daniel Chloe Ethan Ruth
Marco Elena Ahmed Fatima Yuki Chen Wei Priya Ravi Ivan Natasha Pedro Maria Carlos Lucia Pierre Claire""".split()
LAST = """Smith Jones Brown Taylor Miller Davis Wilson Clark Hall Young King Wright Hill Green Baker Adams Carter Turner
Parker Cook Morgan Cooper Ward Brooks Price Ross Wood Fisher Kumar Silva Garcia Lopez Weber Meyer Novak Rossi Tanaka Kim
Singh Dubois""".split()
CITY = """Oslo Paris Rome Lima Cairo Delhi Tokyo Perth Hull Leeds Bonn Lyon Porto Kyiv Riga Turin Ghent Basel Malmo Tampa
Dover Boston Denver Quito Accra Hanoi Osaka Seoul Sydney Dublin London Berlin Madrid Vienna Prague Moscow Athens Warsaw
Lisbon Munich Hamburg Zurich Geneva Milan Naples Chicago Dallas Houston Seattle Miami Atlanta Toronto Montreal Beijing
Shanghai Mumbai Nairobi Lagos Helsinki Stockholm Copenhagen Budapest Brussels Amsterdam Barcelona Bangkok Jakarta Manila
Singapore Melbourne Auckland Istanbul Santiago Bogota Havana""".split()
COUNTRY = """France Germany Italy Spain Norway Sweden Japan China India Brazil Canada Mexico Egypt Kenya Peru Chile
Poland Greece Turkey Russia England Scotland Ireland Portugal Austria Australia Iceland Cuba Vietnam Morocco""".split()
COMMON = """report budget meeting holiday invoice letter photo video camera coffee tea pizza bread cheese soup salad
chicken rice water juice laptop phone keyboard screen printer cable battery ticket train flight hotel taxi museum park beach
mountain bridge school office kitchen bathroom bedroom garage window door table chair sofa lamp carpet shirt jacket shoes
hat gloves umbrella backpack wallet passport guitar piano violin drum football tennis chess puzzle novel poem story
newspaper magazine homework exam lesson teacher student doctor nurse engineer driver pilot farmer artist dog cat horse
rabbit bird fish spider tree flower grass leaf cloud sunshine thunderstorm blizzard hello world test draft final urgent
red green blue yellow purple orange black white large small medium fast slow high low open closed new old""".split()
THINGS = """apples pears plums eggs shells coins books candles nails ropes boxes buttons stamps marbles cups fish loaves
lemons pencils beads stones cards keys bottles""".split()
COLORS = "red blue green white black yellow grey brown".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# verbs of tools, in groups of rough synonyms: a request may use another word of the group than the description
VERBS = [
    "get fetch retrieve obtain".split(),
    "find locate".split(),
    "look|up check".split(),
    "read load".split(),
    "set adjust configure".split(),
    "update change modify edit".split(),
    "count tally".split(),
    "list show display".split(),
    "compute calculate work|out".split(),
    "store save keep record".split(),
    "open unlock".split(),
    "close shut lock".split(),
    "scan inspect examine".split(),
    "measure gauge".split(),
    "compare".split(),
    "delete remove erase".split(),
    "start begin launch".split(),
    "stop end halt".split(),
    "create make add".split(),
    "send deliver".split(),
    "buy purchase order".split(),
    "sell".split(),
    "book reserve".split(),
    "cancel".split(),
    "move shift".split(),
    "copy duplicate".split(),
    "rename".split(),
    "print".split(),
    "paint".split(),
    "repair fix".split(),
    "clean".split(),
    "feed".split(),
    "water".split(),
    "charge".split(),
    "rotate turn".split(),
    "search".split(),
    "upload".split(),
    "download".split(),
    "share".split(),
    "merge combine join".split(),
    "split divide".split(),
    "sort".split(),
    "filter".split(),
    "translate".split(),
    "summarize".split(),
    "schedule plan".split(),
    "track follow".split(),
    "assign".split(),
    "approve".split(),
    "reject".split(),
    "register".split(),
    "play".split(),
    "pause".split(),
    "build".split(),
    "install".split(),
    "test".split(),
    "convert".split(),
    "validate verify".split(),
    "archive".split(),
    "estimate".split(),
    "predict forecast".split(),
    "mix blend".split(),
    "heat warm".split(),
    "cool".split(),
    "light".split(),
    "release".split(),
    "collect gather".split(),
    "weigh".split(),
    "pay".split(),
    "refund".split(),
]
NOUNS = """tide cargo crew map ticket mail garden engine oven battery lesson bridge market shelf tower train rain grain
stock score rank level signal route field tank pump valve badge album account address alarm animal answer app area army
article backup bag ball band bank barrel base basket bath bed bell bike bill boat body bonus box brand bus button cabin
cake calendar call camera candle car card castle chair channel chart chat chest city class clock cloud coach code coffee
color comment company contact contract cookie course court crop customer dam dash data deal deck delivery desk device
diary dinner discount dish document dog dragon drawing dream drink drone employee event exam export factory farm fence
file film filter fire flag fleet flight floor folder forum fountain frame friend fridge fuel fund game gate gift glacier
goal group guard guest guide guild harvest heater helmet hero horse hotel house image inbox inventory invoice island item
job journal kitchen lab label ladder lake lamp law leaf lease letter library license lift link list loan lobby log lunch
machine meal meeting member memo menu message meter mine mirror model module monitor movie museum news note nurse object
office order orchestra package page painting parcel park part party passage password path patient payment photo piano
pilot pipe plan planet plant player playlist plot poem police pool port post potion power price printer prize profile
project puzzle quest question queue quote radio recipe record refund region report request reservation resource review
reward river road robot roof room rule sample school screen script seat sensor server session shadow shape ship shop
shower site sketch slide song sound space spell sport staff stage star station statue storage story street student subject
summary survey switch table tape task tax taxi team temperature tent thermostat ticket timer tool topic torch toy trade
trail treasure tree trip truck user vault vehicle vendor video village visa visitor vote voucher wagon wall warehouse
weather website wheel window wine wing workshop world zone""".split()
PARAMS = """name value amount code target kind size color owner area depth speed weight flag mode count length number key
tag group unit zone limit title text query label category type status priority level date time day month year hour minute
duration city country street address email phone person user author sender receiver subject message body comment note
price currency quantity percent rate score rank width height angle distance radius volume pressure temperature language
format style shape material brand model version id index position source destination origin path folder file topic keyword
reason method channel room floor seat item product order account password token role team player enemy weapon spell skill
strength health energy direction offset page range start end threshold interval delay retries budget""".split()
ENUMS = [
    "low medium high".split(),
    "small medium large".split(),
    "red green blue".split(),
    "celsius fahrenheit".split(),
    "north south east west".split(),
    "daily weekly monthly".split(),
    "draft final".split(),
    "fast normal slow".split(),
    "json xml csv".split(),
    "public private".split(),
    "ascending descending".split(),
    "email sms letter".split(),
    "on off auto".split(),
    "left right".split(),
    "open closed".split(),
    "pdf html text".split(),
    "cash card".split(),
    "metric imperial".split(),
    "easy normal hard".split(),
    "morning noon evening".split(),
    "asc desc".split(),
    "bronze silver gold".split(),
    "summer winter".split(),
    "sea air road".split(),
    "new used".split(),
]
