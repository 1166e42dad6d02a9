//! Checks that imports follow the layers: a module names only modules of lower layers, no feature
//! names another, and no two files import each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{ItemMod, ItemUse, UseTree, Visibility};

/// From top to bottom. Modules of one layer may not name one another.
const LAYERS: [&[&str]; 12] = [
    &["main"],
    &["cli"],
    &["server", "import_fastapi"],
    &["api", "jobs"],
    &["features"],
    &["state"],
    &["live", "webhooks"],
    &["audit"],
    &["security"],
    &["http"],
    &["db"],
    &["core"],
];

/// A path like `crate::db::query` in a source file, outside its unit tests.
struct Mention {
    file: PathBuf,
    path: Vec<String>,
}

#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn add_tree(&mut self, prefix: &[String], tree: &UseTree) {
        let with = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.0.push(with(&name.ident)),
            UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            UseTree::Glob(_) => self.0.push(prefix.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|t| self.add_tree(prefix, t)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    /// The path in `pub(super)` is no import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

pub fn source_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

/// Every source file, relative to `src`.
pub fn files() -> Vec<PathBuf> {
    fn collect_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                collect_files(&entry, found);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                found.push(entry.strip_prefix(source_folder()).unwrap().to_owned());
            }
        }
    }
    let mut found = vec![];
    collect_files(source_folder(), &mut found);
    found.sort();
    assert!(found.len() > 30, "too few source files: {found:?}");
    found
}

/// Every reference from one module of the crate to another, by its full path.
fn mentions() -> Vec<Mention> {
    let (mut mentions, modules) = (vec![], modules());
    for file in files() {
        let text = fs::read_to_string(source_folder().join(&file)).unwrap();
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_file(&text).unwrap());
        for path in paths.0 {
            let absolute = match path.first().map(String::as_str) {
                Some("crate" | "octopus") => path[1..].to_vec(),
                Some("super") => resolve_super(&file, &path),
                Some("self") => [module(&file), path[1..].to_vec()].concat(),
                Some(first) => match [module(&file), vec![first.to_owned()]].concat() {
                    child if modules.contains_key(&child) => [module(&file), path].concat(),
                    _ => continue,
                },
                None => continue,
            };
            mentions.push(Mention { file: file.clone(), path: absolute });
        }
    }
    assert!(mentions.len() > 100, "too few paths found in the sources");
    mentions
}

/// Resolves a `super::…` path in `file`.
fn resolve_super(file: &Path, path: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|step| *step == "super").count();
    let mut module = module(file);
    module.truncate(module.len().saturating_sub(supers));
    module.extend(path[supers..].iter().cloned());
    module
}

/// The path of the module in `file`.
fn module(file: &Path) -> Vec<String> {
    let file = file.with_extension("");
    let steps = file.iter().map(|step| step.to_str().unwrap().to_owned());
    steps.filter(|step| step != "mod").collect()
}

/// The file of each module.
fn modules() -> BTreeMap<Vec<String>, PathBuf> {
    files().into_iter().map(|file| (module(&file), file)).collect()
}

fn top(file: &Path) -> String {
    file.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[apply(without_database!)]
fn imports_point_downwards() {
    let mut wrong = vec![];
    for Mention { file, path } in mentions() {
        let (from, Some(to)) = (top(&file), path.first()) else { continue };
        if from == "lib" || from == *to {
            continue;
        }
        if layer(to) <= layer(&from) {
            wrong.push(format!("{} names {}", file.display(), path.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The files that `file` reaches through imports, if it reaches itself.
fn circle(
    file: &Path,
    imports: &BTreeMap<PathBuf, BTreeSet<PathBuf>>,
) -> Option<BTreeSet<PathBuf>> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(importer) = next.pop() {
        for imported in imports.get(importer).into_iter().flatten() {
            if reached.insert(imported.clone()) {
                next.push(imported);
            }
        }
    }
    reached.contains(file).then_some(reached)
}

#[apply(without_database!)]
fn no_files_import_each_other_in_a_circle() {
    let modules = modules();
    let mut imports: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for Mention { file, path } in mentions() {
        let prefixes = (1..=path.len()).rev().map(|length| &path[..length]);
        let imported = prefixes.into_iter().find_map(|prefix| modules.get(prefix));
        if let Some(imported) = imported.filter(|imported| **imported != file) {
            imports.entry(file).or_default().insert(imported.clone());
        }
    }
    imports.remove(Path::new("lib.rs"));
    assert!(imports.len() > 150, "too few imports found in the sources");
    let in_circle = |file: &PathBuf| circle(file, &imports).is_some();
    let circles = imports.iter().filter(|(file, _)| in_circle(file));
    let circles: BTreeMap<_, BTreeSet<_>> = circles
        .map(|(file, imported)| (file, imported.iter().filter(|file| in_circle(file)).collect()))
        .collect();
    assert!(circles.is_empty(), "these files import each other in circles: {circles:#?}");
}

#[apply(without_database!)]
fn the_api_names_features_only_where_it_mounts_their_routes() {
    let names =
        |m: &Mention| top(&m.file) == "api" && m.path.first().is_some_and(|it| it == "features");
    let wrong: BTreeSet<_> = mentions().into_iter().filter(names).map(|m| m.file).collect();
    assert_eq!(wrong, BTreeSet::from(["api/v1.rs".into()]));
}

#[apply(without_database!)]
fn no_feature_names_another() {
    let mut wrong = vec![];
    for Mention { file, path } in mentions() {
        let own = file.iter().nth(1).and_then(|name| name.to_str());
        let inside = file.starts_with("features") && file != Path::new("features/mod.rs");
        let other = path.get(1).map(String::as_str);
        // What every feature declares.
        let is_declaration = other == Some("feature");
        if inside
            && path.first().is_some_and(|it| it == "features")
            && other != own
            && !is_declaration
        {
            wrong.push(format!("{} names {}", file.display(), path.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[apply(without_database!)]
fn only_repositories_and_the_database_layer_hold_sql() {
    let mut wrong = vec![];
    for Mention { file, path } in mentions() {
        let is_repository = file.iter().any(|step| step == "repository" || step == "repository.rs");
        let runs_sql = path.starts_with(&["db".to_owned(), "query".to_owned()]);
        // The FastAPI original's tables belong to no feature.
        let is_source = file.starts_with("import_fastapi/source");
        // `/ready` reads one row to check the connection.
        let is_health_check = file == Path::new("api/health.rs");
        let may_run_sql = is_repository || is_source || is_health_check || top(&file) == "db";
        if runs_sql && !may_run_sql {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[apply(without_database!)]
fn every_module_has_a_layer() {
    let strays: Vec<_> =
        files().into_iter().filter(|f| top(f) != "lib" && layer(&top(f)).is_none()).collect();
    assert!(strays.is_empty(), "{strays:?} are missing in LAYERS");
}
