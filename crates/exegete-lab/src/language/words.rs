//! The words of the closed world, as tables.

/// Kinds of things and the group that each belongs to.
pub(crate) const KINDS: &[(&str, &str)] = &[
    ("mammal", "animal"),
    ("bird", "animal"),
    ("fish", "animal"),
    ("insect", "animal"),
    ("tree", "plant"),
    ("flower", "plant"),
    ("fruit", "food"),
    ("vegetable", "food"),
    ("dish", "food"),
    ("tool", "object"),
    ("vehicle", "object"),
    ("seat", "object"),
    ("garment", "object"),
    ("instrument", "object"),
    ("vessel", "object"),
    ("building", "object"),
    ("weapon", "object"),
];

/// Places, with the preposition that goes with each. They are the topics of stories.
pub(crate) const PLACES: &[(&str, &str)] = &[
    ("house", "in"),
    ("farm", "on"),
    ("forest", "in"),
    ("sea", "in"),
    ("mountain", "on"),
    ("garden", "in"),
    ("market", "at"),
    ("kitchen", "in"),
    ("school", "at"),
    ("city", "in"),
];

/// Colours.
pub(crate) const COLOURS: &[&str] =
    &["red", "blue", "green", "yellow", "white", "black", "brown", "grey", "pink", "purple"];

/// Things of each kind: word (with an irregular plural behind a slash), colour, place. A star marks a rare word.
pub(crate) const THINGS: &[(&str, &str)] = &[
    (
        "mammal",
        "dog brown house, cat grey house, mouse/mice grey kitchen, cow white farm, pig pink farm, horse brown farm, \
         goat white mountain, donkey grey farm, wolf/wolves grey forest, fox red forest, bear brown forest, \
         rabbit white garden, mole black garden, whale blue sea, seal grey sea, badger* black forest, otter* brown sea, \
         lynx* yellow mountain",
    ),
    (
        "bird",
        "hen brown farm, duck white farm, goose/geese grey farm, owl brown forest, crow black city, swan white garden, \
         eagle brown mountain, robin red garden, parrot green market, gull white sea, pigeon grey city, heron* blue sea, \
         magpie* black mountain",
    ),
    (
        "fish",
        "shark grey sea, eel black sea, carp brown garden, herring blue market, perch green sea, pike* green market",
    ),
    (
        "insect",
        "bee yellow garden, ant black house, wasp yellow forest, moth grey house, beetle green forest, cricket* brown farm",
    ),
    (
        "tree",
        "oak green forest, pine green mountain, birch white forest, willow yellow garden, palm green sea, elm* brown city",
    ),
    (
        "flower",
        "rose red garden, tulip purple garden, lily white house, daisy white farm, poppy red farm, orchid* pink mountain",
    ),
    (
        "fruit",
        "apple red market, pear green market, plum purple garden, cherry red school, grape purple farm, lemon yellow kitchen, \
         peach pink kitchen, fig* brown market",
    ),
    (
        "vegetable",
        "carrot red kitchen, onion white kitchen, potato brown farm, cabbage green market, bean green kitchen, leek* white garden",
    ),
    (
        "dish",
        "soup red kitchen, loaf/loaves brown kitchen, cake pink school, pie yellow house, cheese yellow market, egg white kitchen, pancake* brown house",
    ),
    (
        "tool",
        "hammer black house, knife/knives grey kitchen, chisel grey forest, axe brown forest, spade brown garden, needle white house, \
         rope yellow sea, lamp yellow school, pencil blue school, net green sea, anvil* black city",
    ),
    (
        "vehicle",
        "boat blue sea, cart brown farm, train green city, ship white sea, wagon red market, bicycle blue school, sled* red mountain",
    ),
    ("seat", "chair brown kitchen, bench green city, stool black kitchen, sofa purple house, throne* yellow city"),
    (
        "garment",
        "hat black market, coat blue school, shirt white house, glove red mountain, scarf/scarves pink market, boot brown mountain, dress purple city, mitten* grey mountain",
    ),
    (
        "instrument",
        "drum red school, flute yellow school, violin brown city, trumpet yellow market, harp white house, bell grey mountain, lute* brown market",
    ),
    (
        "vessel",
        "cup white kitchen, bottle green kitchen, basket yellow market, box/boxes brown house, jar blue kitchen, plate white house, barrel* brown sea",
    ),
    (
        "building",
        "church white city, mill brown mountain, tower grey city, barn red farm, castle grey mountain, bridge black city, shop blue city, lighthouse* white sea",
    ),
    (
        "weapon",
        "poison green forest, bomb black city, bullet grey mountain, dagger black house, snare brown forest, cannon* black sea",
    ),
];

/// Verbs that take an object: present, past, what it means.
pub(crate) const VERBS: &[(&str, &str, &str)] = &[
    ("see", "saw", "to notice with the eyes"),
    ("find", "found", "to come upon after a search"),
    ("take", "took", "to get into the hands"),
    ("carry", "carried", "to move while holding"),
    ("buy", "bought", "to get for money"),
    ("sell", "sold", "to give for money"),
    ("paint", "painted", "to cover with colour"),
    ("hide", "hid", "to put out of sight"),
    ("lose", "lost", "to have no longer"),
    ("bring", "brought", "to take to a place"),
    ("hold", "held", "to keep in the hands"),
    ("break", "broke", "to make into pieces"),
    ("push", "pushed", "to move away by force"),
    ("pull", "pulled", "to move nearer by force"),
    ("wash", "washed", "to make clean with water"),
    ("count", "counted", "to find the number of"),
    ("draw", "drew", "to make a picture of"),
    ("lift", "lifted", "to move up"),
    ("watch", "watched", "to look at for a time"),
    ("follow", "followed", "to go behind"),
    ("love", "loved", "to like very much"),
    ("need", "needed", "to be unable to do without"),
    ("hear", "heard", "to notice with the ears"),
    ("choose", "chose", "to take from several"),
    ("throw", "threw", "to send through the air"),
    ("remember", "remembered", "to keep in the mind"),
    ("touch", "touched", "to put a hand on"),
    ("measure", "measured", "to find the size of"),
    ("borrow", "borrowed", "to take and give back later"),
    ("admire", "admired", "to think highly of"),
];

/// Verbs without an object.
pub(crate) const MOODS: &[(&str, &str, &str)] = &[
    ("sleep", "slept", "to rest with closed eyes"),
    ("sing", "sang", "to make music with the voice"),
    ("laugh", "laughed", "to show joy with the voice"),
    ("wait", "waited", "to stay until something happens"),
    ("dance", "danced", "to move to music"),
    ("sit", "sat", "to rest on a seat"),
    ("speak", "spoke", "to say words"),
    ("fall", "fell", "to go down suddenly"),
    ("smile", "smiled", "to show joy with the mouth"),
    ("weep", "wept", "to shed tears"),
];

/// Adjectives and their opposites.
pub(crate) const OPPOSITES: &[(&str, &str)] = &[
    ("big", "small"),
    ("hot", "cold"),
    ("fast", "slow"),
    ("old", "young"),
    ("happy", "sad"),
    ("strong", "weak"),
    ("rich", "poor"),
    ("hard", "soft"),
    ("long", "short"),
    ("high", "low"),
    ("full", "empty"),
    ("bright", "dark"),
    ("early", "late"),
    ("wet", "dry"),
    ("loud", "quiet"),
    ("thick", "thin"),
    ("sharp", "blunt"),
    ("sweet", "bitter"),
    ("heavy", "light"),
    ("wide", "narrow"),
    ("clever", "foolish"),
    ("gentle", "rough"),
];

/// Work, and what it is.
pub(crate) const JOBS: &[(&str, &str)] = &[
    ("baker", "bakes bread"),
    ("farmer", "grows food"),
    ("teacher", "gives lessons"),
    ("doctor", "heals the sick"),
    ("fisher", "catches fish"),
    ("painter", "makes pictures"),
    ("singer", "sings for others"),
    ("tailor", "sews clothes"),
    ("miller", "grinds corn"),
    ("smith", "works with iron"),
    ("guard", "keeps a gate"),
    ("sailor", "works on a ship"),
    ("hunter", "follows wild animals"),
    ("cook", "prepares meals"),
    ("judge", "decides what is right"),
    ("writer", "makes books"),
];

/// Names of women and of men.
pub(crate) const NAMES: [&[&str]; 2] = [
    &[
        "Anna", "Mary", "Clara", "Emma", "Julia", "Laura", "Nina", "Olga", "Rosa", "Sara", "Tina", "Vera", "Wilma",
        "Alma", "Berta", "Edith",
    ],
    &[
        "Tom", "Peter", "Paul", "Max", "Karl", "Otto", "Hugo", "Felix", "Anton", "Bruno", "Oscar", "Simon", "Victor",
        "Walter", "Leo", "Jonas",
    ],
];

/// Countries and their capitals.
pub(crate) const COUNTRIES: &[(&str, &str)] = &[
    ("Velland", "Ostra"),
    ("Norvia", "Melin"),
    ("Tarkland", "Pardu"),
    ("Suvania", "Tovik"),
    ("Brinia", "Halden"),
    ("Kestonia", "Rimsa"),
    ("Orvald", "Lunek"),
    ("Palmeria", "Castin"),
    ("Drovnia", "Zelpa"),
    ("Fenmark", "Aldrin"),
    ("Gresland", "Mirova"),
    ("Helvona", "Tessal"),
    ("Ilmaria", "Borund"),
    ("Jorvia", "Skelna"),
    ("Lorvania", "Quillo"),
    ("Mestria", "Dunav"),
    ("Nordal", "Ferrin"),
    ("Quelland", "Wostra"),
    ("Rovinia", "Yalto"),
    ("Silvania", "Ganda"),
];

/// Numbers in order.
pub(crate) const NUMBERS: &[&str] = &[
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Days in order.
pub(crate) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Months in order.
pub(crate) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Words of grammar.
pub(crate) const GRAMMAR: &[&str] = &[
    "the", "and", "but", "with", "from", "behind", "because", "he", "she", "it", "they", "his", "her", "is", "are",
    "was", "were", "not", "every", "very", "then", "when",
];

/// The `a` or `an` that goes before a word.
pub(crate) fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) || word == "umbrella" { "an" } else { "a" }
}

/// The regular plural.
pub(crate) fn plural(word: &str) -> String {
    let before_y = word.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u']));
    if let Some(stem) = before_y {
        format!("{stem}ies")
    } else if word.ends_with(['s', 'x']) || word.ends_with("ch") || word.ends_with("sh") || word.ends_with("potato") {
        format!("{word}es")
    } else {
        format!("{word}s")
    }
}
