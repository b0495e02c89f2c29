//! Compares docs/openapi.json and docs/api.md with the routes and errors in the sources.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::Value;
use syn::{
    Expr, ExprMethodCall, ExprTuple, ItemMod, Lit,
    visit::{self, Visit},
};

use crate::{code_spans, files, read, repo_path};

const PREFIX: &str = "/_matrix/media_proxy/unstable/";
const METHODS: [&str; 4] = ["get", "post", "options", "head"];

/// Method in lower case, and path.
type Route = (String, String);

/// The calls of `route`, and pairs of a status and a name, outside of tests.
#[derive(Default)]
struct SourceVisitor {
    routes: Vec<(Vec<String>, String)>,
    errors: BTreeSet<(u16, String)>,
}

/// Collects string literals, and the names of called functions and methods.
#[derive(Default)]
struct Words {
    texts: Vec<String>,
    names: Vec<String>,
}

impl<'ast> Visit<'ast> for Words {
    fn visit_lit(&mut self, literal: &'ast Lit) {
        if let Lit::Str(text) = literal {
            self.texts.push(text.value());
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        self.names.push(call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func {
            self.names.extend(path.path.segments.last().map(|last| last.ident.to_string()));
        }
        visit::visit_expr_call(self, call);
    }
}

impl<'ast> Visit<'ast> for SourceVisitor {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "route" && call.args.len() == 2 {
            let (mut path, mut methods) = (Words::default(), Words::default());
            path.visit_expr(&call.args[0]);
            methods.visit_expr(&call.args[1]);
            let methods = methods.names.into_iter().filter(|name| METHODS.contains(&&**name));
            self.routes.push((methods.collect(), path.texts.concat()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_tuple(&mut self, tuple: &'ast ExprTuple) {
        let parts: Vec<_> = tuple.elems.iter().collect();
        if let [Expr::Path(path), Expr::Lit(name)] = &parts[..]
            && let Lit::Str(name) = &name.lit
            && path.path.segments.len() == 2
            && path.path.segments[0].ident == "StatusCode"
        {
            let status = status_of(&path.path.segments[1].ident.to_string());
            self.errors.insert((status, name.value()));
        }
        visit::visit_expr_tuple(self, tuple);
    }
}

/// Returns the number of a constant such as `NOT_FOUND`.
fn status_of(constant: &str) -> u16 {
    let name = |status: StatusCode| status.canonical_reason().unwrap_or("").to_uppercase();
    let mut statuses = (100..600).filter_map(|number| StatusCode::from_u16(number).ok());
    let found = statuses.find(|&status| name(status).replace(' ', "_") == constant);
    found.unwrap_or_else(|| panic!("{constant}")).as_u16()
}

fn visit_sources(directory: &str) -> SourceVisitor {
    let mut visitor = SourceVisitor::default();
    for file in files(&repo_path(directory), ".rs") {
        let is_test = |part: std::path::Component<'_>| {
            let part = part.as_os_str().to_string_lossy();
            part == "tests" || part.ends_with("tests.rs")
        };
        if !file.components().any(is_test) {
            visitor.visit_file(&syn::parse_file(&read(&file)).unwrap());
        }
    }
    visitor
}

/// Returns the routes in the sources, with the `HEAD` that the router adds to each `GET`. Leaves out the routes of `[admin]`
/// outside `/v1/`: they belong to the operator page, which is HTML and not an interface for programs.
fn routes() -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for (directory, prefix) in
        [("src/http", PREFIX), ("src/telemetry/operations", ""), ("src/admin", "")]
    {
        let found = visit_sources(directory).routes;
        assert!(found.len() > 3, "{directory}: {found:?}");
        for (methods, path) in found {
            let path = in_camel_case(&path);
            if directory == "src/admin" {
                // A path without a literal would be left out as well.
                assert!(path.starts_with('/'), "{path:?}");
                if !path.starts_with("/v1/") {
                    continue;
                }
            }
            assert!(!methods.is_empty(), "{path}");
            for method in methods {
                if method == "get" {
                    routes.insert(("head".to_owned(), format!("{prefix}{path}")));
                }
                routes.insert((method, format!("{prefix}{path}")));
            }
        }
    }
    routes
}

/// Returns a path whose parameters have the names of the Matrix specification: `{serverName}`.
fn in_camel_case(path: &str) -> String {
    let mut parts = path.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| {
        // Within braces only.
        if path.rfind('{') > path.rfind('}') {
            format!("{path}{}{}", part[..1].to_uppercase(), &part[1..])
        } else {
            format!("{path}_{part}")
        }
    })
}

fn openapi() -> Value {
    serde_json::from_str(&read(&repo_path("docs/openapi.json"))).unwrap()
}

/// Returns the section of docs/api.md below a heading.
fn section(heading: &str) -> String {
    let page = read(&repo_path("docs/api.md"));
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap();
    section.split("\n## ").next().unwrap().to_owned()
}

#[test]
fn openapi_document_has_each_route_and_method() {
    let document = openapi();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            documented.insert(((*method).to_owned(), path.clone()));
        }
    }
    assert_eq!(documented, routes());
}

#[test]
fn pages_have_each_route() {
    let rows = |text: &str, prefix: &str| {
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        let spans = rows.filter_map(|row| code_spans(row).next().map(str::to_owned));
        let routes = spans.filter_map(|span| {
            let (method, path) = span.split_once(" /")?;
            Some((method.to_lowercase(), format!("{prefix}{path}")))
        });
        routes.collect::<BTreeSet<_>>()
    };
    let mut documented = rows(&section("## Routes"), PREFIX);
    documented.extend(rows(&section("## The listener `[admin]`"), "/"));
    let is_in_table = |route: &Route| {
        let is_operations = !route.1.starts_with("/_matrix") && !route.1.starts_with("/v1/");
        !matches!(&*route.0, "head" | "options") && !is_operations
    };
    assert_eq!(documented, routes().into_iter().filter(is_in_table).collect());
    let operations = read(&repo_path("docs/operations.md"));
    for (_, path) in visit_sources("src/telemetry/operations").routes {
        assert!(operations.contains(&format!("\n| `{path}` | ")), "{path}");
    }
}

#[test]
fn documents_have_each_error_of_the_listener_for_changes() {
    let mut expected = visit_sources("src/admin").errors;
    // Only the forms of the operator page cause these.
    expected.retain(|(_, name)| !matches!(&**name, "unknown_origin" | "wrong_form"));
    assert!(expected.len() > 10, "{expected:?}");
    let mut in_page = BTreeSet::new();
    for row in section("## The listener `[admin]`").lines() {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        if let [status, name, _] = cells[..]
            && let Ok(status) = status.parse()
        {
            in_page.insert((status, name.trim_matches('`').to_owned()));
        }
    }
    assert_eq!(in_page, expected);

    let document = openapi();
    let mut in_document = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/") {
            continue;
        }
        let operations = METHODS.iter().filter_map(|method| item.get(*method));
        for (status, response) in operations.flat_map(|item| item["responses"].as_object().unwrap())
        {
            let reference = response["$ref"].as_str().unwrap_or("#/none").trim_start_matches('#');
            let schema = format!("{reference}/content/application~1json/schema/allOf/1");
            let names =
                document.pointer(&schema).map(|schema| &schema["properties"]["error"]["enum"]);
            for name in names.and_then(Value::as_array).into_iter().flatten() {
                in_document.insert((status.parse().unwrap(), name.as_str().unwrap().to_owned()));
            }
        }
    }
    assert_eq!(in_document, expected);
    let names = document.pointer("/components/schemas/AdminError/properties/error/enum").unwrap();
    let names = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    assert_eq!(names.collect::<BTreeSet<_>>(), expected.iter().map(|(_, name)| &**name).collect());
}

#[test]
fn openapi_document_has_the_version_of_the_program() {
    assert_eq!(openapi()["info"]["version"], env!("CARGO_PKG_VERSION"));
}
