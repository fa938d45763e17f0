//! The document that describes the JSON: OpenAPI 3.1, from one table of routes and one of types. A test holds both to what the
//! server answers.

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::respond::Told;

/// A route: address, method, what it does, parameters of the query, fields of the body, type of the answer.
struct Route {
    path: &'static str,
    method: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: &'static [(&'static str, &'static str)],
    answer: &'static str,
}

const DICTIONARY: (&str, &str) = ("dictionary", "Name of the dictionary; the first where it is left out.");

const ROUTES: [Route; 17] = [
    read("/api/overview", "What the run holds.", &[DICTIONARY], "Overview"),
    read(
        "/api/latents",
        "A page of the list of latents.",
        &[
            DICTIONARY,
            ("q", "Words of explanations and notes, part of a token, or #id."),
            ("show", "alive, dead, explained, bookmarked or noted; all where it is left out."),
            ("kind", "few-tokens or positional; all where it is left out."),
            ("low", "Smallest firing rate, as a share of tokens."),
            ("high", "Largest firing rate."),
            (
                "sort",
                "latent, explanation, or a column: rate, count, max, mean, std, logit, cosine, cofiring, correlation, distinct, token, position, norm.",
            ),
            ("order", "asc or desc."),
            ("page", "Page, from 1."),
        ],
        "LatentList",
    ),
    read(
        "/api/latent/{id}",
        "All that is known of a latent.",
        &[DICTIONARY, ("view", "How random firings are shown: levels, intervals or quantiles.")],
        "LatentDetail",
    ),
    change("/api/latent/{id}/note", "Adds a note to a latent.", &[("text", "The note.")], "NoteAdded"),
    change("/api/latent/{id}/bookmark", "Sets or removes a bookmark.", &[("is_set", "true or false.")], "BookmarkSet"),
    change(
        "/api/latent/{id}/label",
        "Keeps a text as the latent's label; one that there is not takes the label away.",
        &[("method", "The method that made the text."), ("rank", "Its place among the method's texts.")],
        "LabelSet",
    ),
    change("/api/note/{id}/remove", "Removes a note.", &[], "NoteAdded"),
    read(
        "/api/context",
        "An example of a latent with all tokens of its window.",
        &[
            DICTIONARY,
            ("latent", "The latent."),
            ("source", "File of the document."),
            ("record", "Record in it."),
            ("window", "Window of the document."),
            ("position", "Offset in the window."),
        ],
        "WholeContext",
    ),
    read(
        "/api/map",
        "Decoder directions on a plane.",
        &[DICTIONARY, ("column", "The column that colours them.")],
        "MapView",
    ),
    read(
        "/api/training",
        "How the training of the run's dictionaries stands.",
        &[("from", "Number of the first dictionary that is drawn."), ("only", "Name of the only one that is.")],
        "TrainingView",
    ),
    read("/api/jobs", "Jobs of the run.", &[], "JobList"),
    change("/api/job/{name}/cancel", "Asks a job to stop.", &[], "Job"),
    read(
        "/api/rating",
        "The next text to be rated blind.",
        &[DICTIONARY, ("seed", "Seed of the order."), ("skip", "Numbers of texts to pass over, with commas.")],
        "RatingTask",
    ),
    change(
        "/api/rating/{id}",
        "Stores a person's rating of a text.",
        &[("grade", "From 1 (wrong) to 5 (right); 0 for cannot tell."), ("seed", "The seed of the order.")],
        "Rated",
    ),
    change(
        "/api/try/latent/{id}",
        "A latent's activations on a text; needs a model at hand.",
        &[("text", "The text.")],
        "TriedText",
    ),
    change(
        "/api/try/latents",
        "The latents that fire on a text; needs a model at hand.",
        &[
            ("text", "The text."),
            ("order", "activation, quantile or effect."),
            ("position", "A token's place, for what fires there alone."),
        ],
        "TriedLatents",
    ),
    read("/api/openapi.json", "This document.", &[], "Document"),
];

const fn read(
    path: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    answer: &'static str,
) -> Route {
    Route { path, method: "get", summary, query, body: &[], answer }
}

const fn change(
    path: &'static str,
    summary: &'static str,
    body: &'static [(&'static str, &'static str)],
    answer: &'static str,
) -> Route {
    Route { path, method: "post", summary, query: &[DICTIONARY], body, answer }
}

/// A type: its name, and its fields with their kinds. A kind is `string`, `integer`, `number` or `boolean` or the name of a type;
/// `[]` behind it stands for a list, `{}` for a map by name, `?` for one that may be null.
type Type = (&'static str, &'static [(&'static str, &'static str)]);

const LINE: &[(&str, &str)] = &[
    ("latent", "integer"),
    ("explanation", "string?"),
    ("is_bookmarked", "boolean"),
    ("value", "number?"),
    ("count", "integer"),
    ("firing_rate", "Estimate"),
    ("max", "number"),
    ("top_tokens", "TokenWeight[]"),
];

const TYPES: [Type; 42] = [
    ("Error", &[("error", "string")]),
    ("Document", &[("openapi", "string"), ("info", "any"), ("paths", "any"), ("components", "any")]),
    ("Estimate", &[("value", "number?"), ("low", "number?"), ("high", "number?"), ("n", "integer")]),
    ("TokenWeight", &[("id", "integer"), ("text", "string"), ("logit", "number?")]),
    ("DictionaryName", &[("name", "string"), ("site", "string?")]),
    (
        "Overview",
        &[
            ("run", "string"),
            ("model", "string?"),
            ("program", "string"),
            ("dictionaries", "DictionaryName[]"),
            ("dictionary", "string"),
            ("latents", "integer"),
            ("alive", "integer"),
            ("tokens", "integer"),
            ("l0", "number?"),
            ("latents_by_level", "integer[]"),
        ],
    ),
    (
        "LatentList",
        &[
            ("total", "integer"),
            ("page", "integer"),
            ("pages", "integer"),
            ("sort", "string"),
            ("is_descending", "boolean"),
            ("latents", "LatentLine[]"),
        ],
    ),
    ("LatentLine", LINE),
    (
        "LatentDetail",
        &[
            ("dictionary", "string"),
            ("mean", "number"),
            ("std", "number"),
            ("bottom_tokens", "TokenWeight[]"),
            ("neighbours", "Related[]"),
            ("profile", "Profile"),
            ("methods", "MethodResult[]"),
            ("scores", "TextScore[]"),
            ("label", "Label?"),
            ("notes", "Note[]"),
            ("problems", "string[]"),
            ("top_examples", "ExampleText[]"),
            ("levels", "LevelDetail[]"),
            ("groups", "Groups?"),
        ],
    ),
    ("Related", &[("latent", "integer"), ("value", "number?"), ("explanation", "string?")]),
    ("Neuron", &[("neuron", "integer"), ("value", "number?")]),
    ("TokenShare", &[("id", "integer"), ("text", "string"), ("share", "number?")]),
    ("LogitHistogram", &[("low", "number"), ("high", "number"), ("counts", "integer[]")]),
    (
        "Profile",
        &[
            ("cofiring", "Related[]"),
            ("correlated_latents", "Related[]"),
            ("correlated_neurons", "Neuron[]"),
            ("aligned_neurons", "Neuron[]"),
            ("decoder_l1", "number?"),
            ("decoder_norm", "number?"),
            ("fired_tokens", "TokenShare[]"),
            ("n_sampled", "integer"),
            ("distinct_tokens", "integer"),
            ("positions", "integer[]"),
            ("position_information", "number?"),
            ("position_share", "number?"),
            ("is_positional", "boolean"),
            ("logits", "LogitHistogram?"),
        ],
    ),
    (
        "MethodResult",
        &[
            ("method", "string"),
            ("explanations", "ExplanationText[]"),
            ("scales", "number?[]"),
            ("curves", "number?[]{}"),
        ],
    ),
    (
        "ExplanationText",
        &[
            ("rank", "integer"),
            ("text", "string"),
            ("scale", "number?"),
            ("score", "number?"),
            ("abstained", "boolean"),
        ],
    ),
    (
        "TextScore",
        &[
            ("text", "string"),
            ("scorer", "string"),
            ("against", "string"),
            ("judge", "string"),
            ("value", "number?"),
            ("low", "number?"),
            ("high", "number?"),
            ("n", "integer"),
            ("failed", "integer"),
            ("chance", "number?"),
        ],
    ),
    ("Label", &[("method", "string"), ("scale", "number?"), ("text", "string"), ("created_secs", "integer")]),
    ("Note", &[("id", "integer"), ("latent", "integer"), ("text", "string"), ("created_secs", "integer")]),
    (
        "ExampleText",
        &[
            ("source", "integer"),
            ("record", "integer"),
            ("window", "integer"),
            ("position", "integer"),
            ("value", "number"),
            ("tokens", "ExampleToken[]"),
            ("sources", "SourceToken[]"),
        ],
    ),
    ("SourceToken", &[("position", "integer"), ("text", "string"), ("value", "number")]),
    ("ExampleToken", &[("text", "string"), ("value", "number?"), ("is_own", "boolean")]),
    (
        "LevelDetail",
        &[
            ("level", "integer"),
            ("low", "number"),
            ("high", "number"),
            ("count", "integer"),
            ("share", "number"),
            ("examples", "ExampleText[]"),
        ],
    ),
    ("Groups", &[("kind", "string"), ("n_sampled", "integer"), ("groups", "Group[]")]),
    ("Group", &[("low", "number"), ("high", "number"), ("share", "number"), ("examples", "ExampleText[]")]),
    ("WholeContext", &[("latent", "integer"), ("max", "number"), ("example", "ExampleText")]),
    (
        "MapView",
        &[
            ("column", "string"),
            ("title", "string"),
            ("is_logarithmic", "boolean"),
            ("variance", "number[]"),
            ("latents", "integer[]"),
            ("x", "number?[]"),
            ("y", "number?[]"),
            ("values", "number?[]"),
        ],
    ),
    (
        "TrainingView",
        &[
            ("model", "string?"),
            ("progress", "string"),
            ("written_secs_ago", "integer?"),
            ("activation_parts", "integer"),
            ("total", "integer"),
            ("finished", "integer"),
            ("first", "integer"),
            ("dictionaries", "TrainedDictionary[]"),
            ("drawn", "Range"),
            ("steps", "number[]"),
            ("steps_a_point", "integer"),
        ],
    ),
    ("Range", &[("start", "integer"), ("end", "integer")]),
    (
        "TrainedDictionary",
        &[
            ("name", "string"),
            ("path", "string"),
            ("kind", "string"),
            ("latents", "integer?"),
            ("step", "integer?"),
            ("planned", "integer?"),
            ("last", "LoggedStep?"),
            ("result", "TrainingResult?"),
            ("problem", "string?"),
            ("curves", "TrainingCurves?"),
            ("density", "Density?"),
        ],
    ),
    (
        "LoggedStep",
        &[("step", "integer"), ("loss", "number?"), ("fvu", "number?"), ("l0", "number?"), ("dead", "integer")],
    ),
    ("TrainingResult", &[("fvu", "Estimate?"), ("l0", "number?"), ("silent", "integer?"), ("measured_on", "string")]),
    (
        "TrainingCurves",
        &[
            ("loss", "number?[]"),
            ("fvu", "number?[]"),
            ("l0", "number?[]"),
            ("sparsity", "number?[]"),
            ("dead", "number?[]"),
        ],
    ),
    ("Density", &[("step", "integer"), ("tokens", "integer"), ("silent", "integer"), ("bins", "DensityBin[]")]),
    ("DensityBin", &[("low", "number"), ("high", "number"), ("latents", "integer")]),
    ("JobList", &[("jobs", "Job[]"), ("unreadable", "string[]")]),
    (
        "Job",
        &[
            ("name", "string"),
            ("kind", "string"),
            ("stage", "string"),
            ("done", "integer"),
            ("total", "integer?"),
            ("unit", "string"),
            ("state", "string"),
            ("running_secs", "integer"),
            ("heard_secs_ago", "integer"),
            ("rate", "number?"),
            ("left_secs", "integer?"),
            ("is_cancelled", "boolean"),
        ],
    ),
    (
        "RatingTask",
        &[
            ("candidate", "integer"),
            ("seed", "integer"),
            ("text", "string"),
            ("examples", "ExampleText[]"),
            ("max", "number"),
            ("rated", "integer"),
            ("total", "integer"),
        ],
    ),
    ("Rated", &[("rated", "integer"), ("total", "integer")]),
    ("TriedText", &[("latent", "integer"), ("tokens", "TriedToken[]")]),
    ("TriedToken", &[("text", "string"), ("value", "number?")]),
    ("TriedLatents", &[("tokens", "string[]"), ("latents", "FiringLatent[]"), ("total", "integer")]),
];

/// Types of one field or few.
const SMALL: [Type; 4] = [
    ("NoteAdded", &[("note", "integer")]),
    ("BookmarkSet", &[("is_bookmarked", "boolean")]),
    ("LabelSet", &[("label", "string?")]),
    (
        "FiringLatent",
        &[
            ("latent", "integer"),
            ("position", "integer"),
            ("value", "number"),
            ("quantile", "number?"),
            ("effect", "number?"),
            ("explanation", "string?"),
        ],
    ),
];

/// The document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method] = operation(route);
    }
    let schemas: Map<String, Value> =
        TYPES.iter().chain(&SMALL).map(|(name, fields)| ((*name).to_owned(), schema_of_type(name, fields))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "exegete",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the pages over a run show. Numbers that are none are null. Changes are taken from the server's own pages and from programs that send no Origin.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// Sends the document.
pub(crate) async fn answer() -> Response {
    Told(document()).into_response()
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(route.query.iter().map(
        |(name, what)| json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } }),
    ));
    let content = |name: &str| json!({ "application/json": { "schema": reference(name) } });
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": "The answer.", "content": content(route.answer) },
            "default": { "description": "What went wrong, in words.", "content": content("Error") },
        },
    });
    if route.method == "post" {
        let properties: Map<String, Value> = route
            .body
            .iter()
            .map(|(name, what)| ((*name).to_owned(), json!({ "type": "string", "description": what })))
            .collect();
        let schema = json!({ "type": "object", "properties": properties });
        operation["requestBody"] = json!({ "required": true, "content": {
            "application/json": { "schema": schema }, "application/x-www-form-urlencoded": { "schema": schema },
        } });
    }
    operation
}

fn schema_of_type(name: &str, fields: &[(&str, &str)]) -> Value {
    // The detail of a latent begins with its line in the list.
    let before = if name == "LatentDetail" { LINE } else { &[] };
    let all = || before.iter().chain(fields);
    let properties: Map<String, Value> = all().map(|(name, kind)| ((*name).to_owned(), schema_of(kind))).collect();
    let required: Vec<&str> = all().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn schema_of(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix("[]") {
        return json!({ "type": "array", "items": schema_of(kind) });
    }
    if let Some(kind) = kind.strip_suffix("{}") {
        return json!({ "type": "object", "additionalProperties": schema_of(kind) });
    }
    if let Some(kind) = kind.strip_suffix('?') {
        return json!({ "oneOf": [schema_of(kind), { "type": "null" }] });
    }
    match kind {
        "any" => json!({}),
        "string" | "integer" | "number" | "boolean" => json!({ "type": kind }),
        name => reference(name),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_the_other_way_round() {
        let documented: Vec<(&str, &str)> = ROUTES.iter().map(|route| (route.path, route.method)).collect();
        let routed: Vec<(&str, &str)> = crate::routes::api().iter().map(|(path, method, _)| (*path, *method)).collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_type_that_is_named_is_there() {
        let text = document().to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document()["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
