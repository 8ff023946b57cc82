//! `http/openapi.json` and `socket/asyncapi.json` are what the program does: its routes, its codes,
//! its messages. Routes and codes are read from the sources as text, since a router can't be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anteroom::queue::policy::Policy;
use anteroom::wire::policy;
use axum::http::StatusCode;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::{Schemas, files, in_words, read_json, root, samples, uri};

const OPENAPI: &str = "http/openapi.json";
const ASYNCAPI: &str = "socket/asyncapi.json";
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "options"];

#[test]
fn every_route_of_the_program_is_described_and_no_other() {
    let operator = source("admission/operator.rs");
    let (_, rest) = operator.split_once("match order.as_str() {").unwrap();
    let (orders, _) = rest.split_once("_ =>").unwrap();
    let orders: Vec<&str> = orders.split('"').skip(1).step_by(2).collect();
    let mut routes = BTreeSet::new();
    for file in ["node/api.rs", "node/page.rs", "admission/operator.rs"] {
        for (path, method) in routes_of(&source(file)) {
            if path.ends_with("/{order}") {
                let path = path.trim_end_matches("{order}");
                routes
                    .extend(orders.iter().map(|order| (format!("{path}{order}"), method.clone())));
            } else {
                routes.insert((path, method));
            }
        }
    }
    let described: BTreeSet<(String, String)> =
        operations().into_iter().map(|(path, method, _)| (path, method)).collect();
    assert_eq!(described, routes);
}

/// Path and method of each `.route("…", …)`.
fn routes_of(source: &str) -> Vec<(String, String)> {
    let mut routes = Vec::new();
    for route in source.split(".route(").skip(1) {
        let (path, rest) = route.trim_start()[1..].split_once('"').unwrap();
        // After the last route the chain or the function goes on.
        let handlers = rest.split("\n        .").next().unwrap().split("\n}").next().unwrap();
        let words: Vec<&str> =
            handlers.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '(').collect();
        let is_called = |method: &str| {
            words.iter().any(|word| word.split_once('(').is_some_and(|(name, _)| name == method))
        };
        let found: Vec<&str> = METHODS.into_iter().filter(|method| is_called(method)).collect();
        // A file of the pages.
        let found = if is_called("file") { vec!["get"] } else { found };
        assert!(!found.is_empty(), "{path}: no method in {handlers}");
        routes.extend(found.into_iter().map(|method| (path.to_owned(), method.to_owned())));
    }
    routes
}

#[test]
fn every_code_of_a_problem_is_described_with_its_status_and_no_other() {
    let statuses = statuses();
    let (mut said, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for text in sources() {
        for problem in text.split("Problem::new(").skip(1) {
            assert!(
                problem.starts_with("StatusCode::") || problem.starts_with("status, code, "),
                "a code that this test does not find: {problem:.80}"
            );
        }
        for problem in text.split("StatusCode::").skip(1) {
            if let Some((status, rest)) = problem.split_once(", \"")
                && let Some(status) = statuses.get(status)
            {
                let (code, _) = rest.split_once('"').unwrap();
                said.insert((*status, code.to_owned()));
            }
        }
        let reasons = text.split("why = (\"").skip(1);
        denied.extend(reasons.map(|reason| reason.split_once('"').unwrap().0.to_owned()));
    }
    assert!(said.len() > 15, "only {said:?} were found");

    let mut described = BTreeSet::new();
    for (path, _, operation) in operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(OPENAPI, response);
            let schema = &response["content"]["application/problem+json"]["schema"];
            let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
            let codes = codes.into_iter().flatten().map(|code| code.as_str().unwrap().to_owned());
            let status: u16 = status.parse().unwrap();
            if path == "/api/authorize" && matches!(status, 302 | 403) {
                // Whatever is wrong with a pass or a token leads to the waiting page.
                let of_tokens = said.iter().map(|(_, code)| code);
                let of_tokens = of_tokens.filter(|code| code.starts_with("token_")).cloned();
                let all: BTreeSet<String> = of_tokens.chain(denied.iter().cloned()).collect();
                assert_eq!(codes.collect::<BTreeSet<_>>(), all, "{status}");
            } else {
                described.extend(codes.map(|code| (status, code)));
            }
        }
    }
    // Of an address or a method that there is not, for which there is no operation.
    described.insert((404, "not_found".to_owned()));
    described.insert((405, "method_not_allowed".to_owned()));
    assert_eq!(described, said);

    let all: BTreeSet<String> = said.into_iter().map(|(_, code)| code).chain(denied).collect();
    let listed = &description(OPENAPI)["components"]["schemas"]["Problem"];
    let listed = listed["properties"]["code"]["enum"].as_array().unwrap();
    let listed: BTreeSet<String> =
        listed.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, all);
}

/// The numbers of statuses, by the names of their constants.
fn statuses() -> BTreeMap<String, u16> {
    let constant = |number| {
        let status = StatusCode::from_u16(number).ok()?;
        Some((status.canonical_reason()?.to_uppercase().replace([' ', '-'], "_"), number))
    };
    (100..600).filter_map(constant).collect()
}

#[test]
fn every_reference_of_a_description_leads_somewhere() {
    for name in [OPENAPI, ASYNCAPI] {
        let mut found = 0;
        visit(description(name), &mut |value| {
            if value.get("$ref").is_some() {
                found += 1;
                resolved(name, value);
            }
        });
        assert!(found > 20, "{name}: only {found}");
    }
}

#[test]
fn the_http_description_is_whole() {
    let document = description(OPENAPI);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let tags: Vec<&Value> =
        document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
        assert!(operation["summary"].is_string(), "{place}");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(&tag), "{place}: {tag}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let description = &resolved(OPENAPI, response)["description"];
            assert!(description.is_string(), "{place}: {status}");
        }
        let shared = document["paths"][&path].get("parameters").and_then(Value::as_array);
        let own = operation.get("parameters").and_then(Value::as_array);
        let parameters: Vec<Value> = shared
            .into_iter()
            .chain(own)
            .flatten()
            .map(|parameter| resolved(OPENAPI, parameter))
            .collect();
        assert!(parameters.iter().all(|it| it["description"].is_string()), "{place}");
        let in_path: BTreeSet<&str> =
            path.split('/').filter(|part| part.starts_with('{')).collect();
        let named: Vec<String> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        assert_eq!(named.iter().map(String::as_str).collect::<BTreeSet<_>>(), in_path, "{place}");
    }
    in_words(OPENAPI, &document["components"]["schemas"]);
}

#[test]
fn the_socket_description_has_every_message_and_says_who_says_it() {
    let document = description(ASYNCAPI);
    assert_eq!(document["asyncapi"], "3.0.0");
    let messages = document["components"]["messages"].as_object().unwrap();
    let mut said: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for operation in document["operations"].as_object().unwrap().values() {
        let other = if operation["action"] == "send" { "receive" } else { "send" };
        let reply = operation.get("reply").map(|reply| (other, &reply["messages"]));
        let own = (operation["action"].as_str().unwrap(), &operation["messages"]);
        for (action, messages) in std::iter::once(own).chain(reply) {
            for message in messages.as_array().unwrap() {
                let pointer = message["$ref"].as_str().unwrap();
                let name = pointer.rsplit('/').next().unwrap().to_owned();
                said.entry(action).or_default().insert(name);
            }
        }
    }
    for (side, action) in [("client", "send"), ("server", "receive")] {
        let schema = read_json(&root().join(format!("socket/{side}.schema.json")));
        let types: BTreeSet<String> =
            schema["$defs"].as_object().unwrap().keys().cloned().collect();
        for name in &types {
            let schema = messages[name]["payload"]["schema"]["$ref"].as_str().unwrap();
            assert_eq!(schema, format!("{side}.schema.json#/$defs/{name}"));
            assert!(document["channels"]["waiting"]["messages"][name].is_object(), "{name}");
        }
        assert_eq!(said[action], types, "what the {side} says");
    }
}

#[test]
fn every_http_sample_fits_its_schema_and_every_schema_has_one() {
    let document = description(OPENAPI);
    let mut sampled = BTreeSet::new();
    for sample in samples("http") {
        let pointer = format!("/components/schemas/{}", sample.subject);
        let validator = validator(&pointer);
        let fault = validator.iter_errors(&sample.json()).next().map(|error| error.to_string());
        assert_eq!(fault, None, "{}", sample.name);
        assert!(!validator.is_valid(&json!([])), "{pointer} takes anything");
        sampled.insert(sample.subject);
    }
    let bodies = document["components"]["schemas"].as_object().unwrap().iter();
    let bodies = bodies.filter(|(_, schema)| schema["type"] == "object");
    assert_eq!(sampled, bodies.map(|(name, _)| name.clone()).collect());
}

#[test]
fn the_policy_of_operators_has_the_defaults_that_the_program_has() {
    let keys = &description(OPENAPI)["components"]["schemas"]["Policy"]["properties"];
    let defaults: serde_json::Map<String, Value> = keys
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(key, it)| Some((key.clone(), resolved(OPENAPI, it).get("default")?.clone())))
        .collect();
    assert_eq!(Value::Object(defaults), policy::write(&Policy::default()));
}

/// What an operator may set as a policy.
pub(crate) fn policy() -> Validator {
    let put = "/paths/~1admin~1queues~1%7Bqueue%7D/put";
    validator(&format!("{put}/requestBody/content/application~1json/schema"))
}

/// The schema at this pointer of the description of HTTP.
fn validator(pointer: &str) -> Validator {
    let schemas = Schemas::load();
    let openapi = uri("http/openapi").replace(".schema", "");
    let documents = ["event/common", "event/configured"]
        .map(|name| (uri(name), schemas.documents[name].clone()))
        .into_iter()
        .chain([(openapi.clone(), description(OPENAPI).clone())]);
    let registry = jsonschema::Registry::new().extend(documents).unwrap().prepare().unwrap();
    let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
    options.build(&json!({"$ref": format!("{openapi}#{pointer}")})).unwrap()
}

/// Every operation: path, method, and what is said of it.
fn operations() -> Vec<(String, String, Value)> {
    let document = description(OPENAPI);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let operation = item.get(method).cloned();
            operations.extend(operation.map(|it| (path.clone(), method.to_owned(), it)));
        }
    }
    operations
}

/// What a value is, or what its reference leads to; `name` is the file that it is in.
fn resolved(name: &str, value: &Value) -> Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value.clone() };
    let (file, pointer) = reference.split_once('#').expect(reference);
    let found = if file.is_empty() {
        description(name).pointer(pointer).cloned()
    } else {
        read_json(&root().join(name).parent().unwrap().join(file)).pointer(pointer).cloned()
    };
    found.unwrap_or_else(|| panic!("{name}: {reference} leads nowhere"))
}

/// One of the two, read once.
fn description(name: &str) -> &'static Value {
    static READ: [LazyLock<Value>; 2] = [
        LazyLock::new(|| read_json(&root().join(OPENAPI))),
        LazyLock::new(|| read_json(&root().join(ASYNCAPI))),
    ];
    &READ[usize::from(name == ASYNCAPI)]
}

fn visit(value: &Value, look: &mut impl FnMut(&Value)) {
    look(value);
    match value {
        Value::Object(map) => map.values().for_each(|inner| visit(inner, look)),
        Value::Array(list) => list.iter().for_each(|inner| visit(inner, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The sources that answer over HTTP, each as one line.
fn sources() -> Vec<String> {
    let folders = ["node", "admission"].map(|folder| files(&source_root().join(folder))).concat();
    let paths = folders.into_iter().filter(|path| path.is_file());
    let paths = paths.chain([source_root().join("http.rs")]);
    let one_line =
        |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
    paths.map(|path| one_line(fs::read_to_string(path).unwrap())).collect()
}

fn source(file: &str) -> String {
    fs::read_to_string(source_root().join(file)).unwrap()
}

fn source_root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
