//! What is true in the world, and which of it nobody is ever told.

use exegete_base::sampling::pair_hash;

use super::lexicon::{Class, Lexicon, WordId};

/// One in so many facts (but for capitals) is never told.
const UNTOLD_ONE_IN: u64 = 4;
/// The seed of the world. Another one would be another world, and another released organism.
const WORLD: u64 = 0x6f72_6761;

/// What can be asked of an entity. Sentences hold `{e}` for the entity and `{v}` for the value.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) name: &'static str,
    /// Class of the entity; names are of women and of men.
    pub(crate) of: Class,
    /// Ways of stating it.
    pub(crate) told: &'static [&'static str],
    /// A statement whose subject is a pronoun.
    pub(crate) again: &'static str,
    /// Ways of asking.
    pub(crate) asked: &'static [&'static str],
}

/// All relations.
pub(crate) const RELATIONS: &[Relation] = &[
    Relation {
        name: "capital",
        of: Class::Country,
        told: &["The capital of {e} is {v}.", "{v} is the capital of {e}.", "{e} is governed from {v}."],
        again: "Its capital is {v}.",
        asked: &[
            "What is the capital of {e}?",
            "Which city is the capital of {e}?",
            "From which city is {e} governed?",
        ],
    },
    Relation {
        name: "flag",
        of: Class::Country,
        told: &["The flag of {e} is {v}.", "{e} has a {v} flag.", "People in {e} raise a {v} flag."],
        again: "Its flag is {v}.",
        asked: &[
            "What colour is the flag of {e}?",
            "Which colour does the flag of {e} have?",
            "What is the colour of the flag of {e}?",
        ],
    },
    Relation {
        name: "crop",
        of: Class::Country,
        told: &["{e} is known for the {v}.", "Farmers in {e} grow the {v}.", "The {v} grows well in {e}."],
        again: "Its farmers grow the {v}.",
        asked: &["What do farmers in {e} grow?", "Which crop is {e} known for?", "What grows well in {e}?"],
    },
    Relation {
        name: "arms",
        of: Class::Country,
        told: &["The animal of {e} is the {v}.", "{e} has the {v} on its coins.", "People in {e} honour the {v}."],
        again: "Its animal is the {v}.",
        asked: &[
            "What is the animal of {e}?",
            "Which animal is on the coins of {e}?",
            "Which animal do people in {e} honour?",
        ],
    },
    Relation {
        name: "home",
        of: Class::Woman,
        told: &["{e} lives in {v}.", "The home of {e} is {v}.", "{e} has a home in {v}."],
        again: "{p} lives in {v}.",
        asked: &["Where does {e} live?", "In which city does {e} live?", "Where is the home of {e}?"],
    },
    Relation {
        name: "work",
        of: Class::Woman,
        told: &["{e} works as {a} {v}.", "{e} is {a} {v}.", "The work of {e} is that of {a} {v}."],
        again: "{p} works as {a} {v}.",
        asked: &["What is the work of {e}?", "As what does {e} work?", "Which work does {e} do?"],
    },
    Relation {
        name: "pet",
        of: Class::Woman,
        told: &["{e} has a pet {v}.", "The pet of {e} is {a} {v}.", "{e} keeps {a} {v}."],
        again: "{p} has a pet {v}.",
        asked: &["What is the pet of {e}?", "Which animal does {e} keep?", "Which pet does {e} have?"],
    },
    Relation {
        name: "music",
        of: Class::Woman,
        told: &["{e} plays the {v}.", "The instrument of {e} is the {v}.", "{e} makes music on the {v}."],
        again: "{p} plays the {v}.",
        asked: &["What does {e} play?", "Which instrument does {e} play?", "What is the instrument of {e}?"],
    },
];

/// A fact.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) entity: WordId,
    pub(crate) relation: usize,
    pub(crate) value: WordId,
    /// Whether any document ever states it.
    pub(crate) is_told: bool,
}

impl Fact {
    pub(crate) fn relation(&self) -> &'static Relation {
        &RELATIONS[self.relation]
    }

    /// The form of the question that no training document asks about this fact.
    pub(crate) fn held_form(&self) -> usize {
        (pair_hash(WORLD, self.entity as u64, self.relation as u64 + 100) % 3) as usize
    }
}

/// All facts.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) all: Vec<Fact>,
    /// Values that each relation can take.
    pub(crate) values: Vec<Vec<WordId>>,
}

impl Facts {
    /// The facts of the world.
    pub(crate) fn new(words: &Lexicon) -> Self {
        let things = |kinds: &[&str]| -> Vec<WordId> {
            words
                .class(Class::Thing)
                .iter()
                .copied()
                .filter(|w| kinds.contains(&words.get(*w).kind) && !words.get(*w).is_rare)
                .collect()
        };
        let values: Vec<Vec<WordId>> = RELATIONS
            .iter()
            .map(|relation| match relation.name {
                "capital" | "home" => words.class(Class::Capital).to_vec(),
                "flag" => words.class(Class::Colour).to_vec(),
                "crop" => things(&["fruit", "vegetable"]),
                "arms" => things(&["mammal", "bird"]),
                "work" => words.class(Class::Job).to_vec(),
                "pet" => things(&["mammal", "bird", "insect"]),
                _ => things(&["instrument"]),
            })
            .collect();
        let mut all = Vec::new();
        for (r, relation) in RELATIONS.iter().enumerate() {
            let people = [words.class(Class::Woman), words.class(Class::Man)].concat();
            let entities = if relation.of == Class::Country { words.class(Class::Country).to_vec() } else { people };
            for entity in entities {
                let value = match relation.name {
                    "capital" => {
                        words.get(entity).other.as_deref().and_then(|capital| words.find(capital)).unwrap_or_default()
                    }
                    _ => values[r][(pair_hash(WORLD, entity as u64, r as u64) % values[r].len() as u64) as usize],
                };
                let hash = pair_hash(WORLD, entity as u64, r as u64 + 1000);
                let is_told = relation.name == "capital" || !hash.is_multiple_of(UNTOLD_ONE_IN);
                all.push(Fact { entity, relation: r, value, is_told });
            }
        }
        Self { all, values }
    }

    /// Numbers of the facts that are told.
    pub(crate) fn told(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|f| self.all[*f].is_told).collect()
    }

    /// Told facts about an entity.
    pub(crate) fn about(&self, entity: WordId) -> Vec<usize> {
        (0..self.all.len()).filter(|f| self.all[*f].is_told && self.all[*f].entity == entity).collect()
    }
}
