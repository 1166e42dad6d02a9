//! Checks that no type whose `Debug` is derived has a secret in plain text.

use crate::layers::{files, source_folder};
use std::fs;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, Ident, ItemEnum, ItemMod, ItemStruct, PathSegment, Type};

/// The last word of a name that may hold a secret.
const WORDS: [&str; 7] = ["key", "keys", "secret", "token", "tokens", "ticket", "password"];

/// Fields whose names only look like those of secrets, with the reason.
const ALLOWED: &[(&str, &str)] = &[
    ("Subject.Key", "the id and the name of an API key"),
    ("IdempotencyKey.key_hash", "the hash of an `Idempotency-Key`, which grants nothing"),
];

/// Text and bytes inside a type. The types `Secret…` redact their `Debug` output.
#[derive(Default)]
struct PlainText(bool);

impl<'ast> Visit<'ast> for PlainText {
    fn visit_path_segment(&mut self, segment: &'ast PathSegment) {
        if !segment.ident.to_string().starts_with("Secret") {
            self.0 |= ["String", "str", "u8"].iter().any(|name| segment.ident == name);
            visit::visit_path_segment(self, segment);
        }
    }
}

fn is_plain_text(ty: &Type) -> bool {
    let mut found = PlainText::default();
    found.visit_type(ty);
    found.0
}

/// Returns whether `name`, in snake case or camel case, ends in one of the [`WORDS`]. The hash of a
/// secret counts as one.
fn names_a_secret(name: &Ident) -> bool {
    let mut snake = String::new();
    for character in name.to_string().chars() {
        if character.is_uppercase() {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    let words = snake.strip_suffix("_hash").unwrap_or(&snake);
    words.rsplit('_').next().is_some_and(|last| WORDS.contains(&last))
}

fn derives_debug(attributes: &[Attribute]) -> bool {
    let mut found = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let parsed = attribute.parse_nested_meta(|derived| {
            found |= derived.path.segments.last().is_some_and(|last| last.ident == "Debug");
            Ok(())
        });
        parsed.unwrap();
    }
    found
}

/// Secrets in plain text in types with a derived `Debug`, as `Type.field`.
#[derive(Default)]
struct Exposed {
    types: usize,
    fields: Vec<String>,
}

impl Exposed {
    /// Adds the `fields` of the type `of`. Fields without a name have the name `unnamed`: that of
    /// their type or variant.
    fn add(&mut self, of: &Ident, fields: &Fields, unnamed: &Ident) {
        for field in fields {
            let name = field.ident.as_ref().unwrap_or(unnamed);
            if names_a_secret(name) && is_plain_text(&field.ty) {
                self.fields.push(format!("{of}.{name}"));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Exposed {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if derives_debug(&item.attrs) {
            self.types += 1;
            self.add(&item.ident, &item.fields, &item.ident);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if derives_debug(&item.attrs) {
            self.types += 1;
            for variant in &item.variants {
                self.add(&item.ident, &variant.fields, &variant.ident);
            }
        }
    }
}

#[apply(without_database!)]
fn no_derived_debug_prints_a_secret() {
    let (mut wrong, mut types, mut used) = (vec![], 0, vec![]);
    for file in files() {
        let text = fs::read_to_string(source_folder().join(&file)).unwrap();
        let mut exposed = Exposed::default();
        exposed.visit_file(&syn::parse_file(&text).unwrap());
        types += exposed.types;
        for field in exposed.fields {
            match ALLOWED.iter().find(|(allowed, _)| *allowed == field) {
                Some((allowed, _)) => used.push(*allowed),
                None => wrong.push(format!("{}: {field}", file.display())),
            }
        }
    }
    assert!(types > 100, "too few types with a derived Debug: {types}");
    assert!(wrong.is_empty(), "use `security::secret::Secret` for {wrong:#?}");
    let unused: Vec<_> = ALLOWED.iter().filter(|(allowed, _)| !used.contains(allowed)).collect();
    assert!(unused.is_empty(), "no longer needed: {unused:?}");
}

#[apply(without_database!)]
fn a_secret_in_a_derived_debug_is_found() {
    const SOURCE: &str = "
        #[derive(Debug, Serialize)]
        pub struct CreatedApiKey { pub name: String, pub key: String }
        #[derive(Clone, Debug)]
        struct Stored { access_token: Option<Box<str>>, password_hash: String, secret: Secret }
        #[derive(Debug)]
        struct ResetToken(String);
        #[derive(Debug)]
        enum Presented<'r> { Nothing, ApiKey(&'r str), Session { ticket: &'r [u8], id: i64 } }
        struct Login { password: String }
        #[derive(Debug)]
        struct Row { token_type: &'static str, key_prefix: String, key: SecretSlice<u8> }
    ";
    let mut exposed = Exposed::default();
    exposed.visit_file(&syn::parse_str(SOURCE).unwrap());
    let expected = [
        "CreatedApiKey.key",
        "Stored.access_token",
        "Stored.password_hash",
        "ResetToken.ResetToken",
        "Presented.ApiKey",
        "Presented.ticket",
    ];
    assert_eq!(exposed.fields, expected);
}
