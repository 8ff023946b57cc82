//! The samples show every shape that a schema allows: each optional field there and left out, each
//! word of a choice, the smallest and the largest of what has limits.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Schemas, samples};

/// A thousand facts are tried by a test of their own, not kept as a sample.
const ITEMS_SHOWN_MAX: u64 = 100;

#[test]
fn the_samples_show_every_shape_of_an_entry() {
    let mut shapes = Shapes::default();
    for sample in ["event/valid", "event/halt"].into_iter().flat_map(samples) {
        shapes.look(&sample.schema(), "", &[&sample.schema()], &sample.json());
    }
    // A log has to be raised to all levels before, one after the other.
    assert!(shapes.wanted.remove("event/configured.level : maximum 65535"));
    shapes.assert_all_are_shown();
}

#[test]
fn the_samples_show_every_shape_of_a_message() {
    let mut shapes = Shapes::default();
    for sample in samples("socket") {
        let schema = format!("socket/{}", sample.subject);
        shapes.look(&schema, "", &[&schema], &sample.json());
    }
    shapes.assert_all_are_shown();
}

struct Shapes {
    schemas: Schemas,
    wanted: BTreeSet<String>,
    shown: BTreeSet<String>,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { schemas: Schemas::load(), wanted: BTreeSet::new(), shown: BTreeSet::new() }
    }
}

impl Shapes {
    fn assert_all_are_shown(&self) {
        let missing: Vec<&String> = self.wanted.difference(&self.shown).collect();
        assert!(self.wanted.len() > 30, "{:?}", self.wanted);
        assert!(missing.is_empty(), "no sample shows {missing:#?}");
    }

    /// Notes what a value shows of the schema at this pointer of this document.
    fn look(&mut self, document: &str, pointer: &str, path: &[&str], value: &Value) {
        let schema = self.schemas.documents[document].pointer(pointer).unwrap().clone();
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let (file, pointer) = reference.split_once('#').unwrap();
            let folder = document.split('/').next().unwrap();
            let file = file.strip_suffix(".schema.json");
            let document =
                file.map_or_else(|| document.to_owned(), |file| format!("{folder}/{file}"));
            return self.look(&document, pointer, path, value);
        }
        let choice = pointer.split("/oneOf/").nth(1).unwrap_or_default();
        let name = format!("{} {choice}", path.join("."));
        for (index, branch) in schema["oneOf"].as_array().into_iter().flatten().enumerate() {
            let inner = format!("{pointer}/oneOf/{index}");
            self.wanted.insert(format!("{name}: choice {index}"));
            if self.fits(document, branch, value) {
                self.shown.insert(format!("{name}: choice {index}"));
                self.look(document, &inner, path, value);
            }
        }
        for word in schema["enum"].as_array().into_iter().flatten() {
            self.note(&name, word, value == word);
        }
        let (limits, measured) = match value {
            Value::Number(number) => (["minimum", "maximum"], number.as_u64()),
            Value::String(text) => (["minLength", "maxLength"], Some(text.chars().count() as u64)),
            Value::Array(items) => (["minItems", "maxItems"], Some(items.len() as u64)),
            Value::Null | Value::Bool(_) | Value::Object(_) => ([""; 2], None),
        };
        for limit in limits {
            let bound = schema[limit].as_u64();
            if let Some(bound) = bound.filter(|it| limit != "maxItems" || *it < ITEMS_SHOWN_MAX) {
                self.note(&name, &format!("{limit} {bound}"), measured == Some(bound));
            }
        }
        for item in value.as_array().into_iter().flatten() {
            self.look(document, &format!("{pointer}/items"), &[path, &["*"]].concat(), item);
        }
        let required = schema["required"].as_array();
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let inner = value.get(key);
            if !required.is_some_and(|required| required.iter().any(|it| it == key)) {
                self.note(&name, &format!("with {key}"), inner.is_some());
                // What has a default is always written; that it may be left out, a test of its
                // own shows.
                if property.get("default").is_none() {
                    self.note(&name, &format!("without {key}"), inner.is_none());
                }
            }
            if let Some(inner) = inner {
                let pointer = format!("{pointer}/properties/{key}");
                self.look(document, &pointer, &[path, &[key.as_str()]].concat(), inner);
            }
        }
    }

    fn note(&mut self, name: &str, what: &(impl std::fmt::Display + ?Sized), is_shown: bool) {
        let what = format!("{name}: {what}");
        if is_shown {
            self.shown.insert(what.clone());
        }
        self.wanted.insert(what);
    }

    /// Whether a value is of this branch, by its keys and its type.
    fn fits(&self, document: &str, branch: &Value, value: &Value) -> bool {
        let branch = branch.get("$ref").and_then(Value::as_str).map_or(branch, |reference| {
            self.schemas.documents[document].pointer(reference.trim_start_matches('#')).unwrap()
        });
        let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
        let kind = &branch["properties"]["type"]["const"];
        branch["required"].as_array().unwrap().iter().all(has)
            && (kind.is_null() || *kind == value["type"])
    }
}
