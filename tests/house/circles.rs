//! Circles: modules of one folder that name each other, directly or around a corner. Who reads one of them has to read all.
//!
//! A folder's own mod.rs is no part of a circle: it gathers its modules, and they may name what it holds for all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::File;
use crate::source::{imports, module, paths};

type Path = Vec<String>;

/// A file of the crate as the search sees it.
struct Module<'a> {
    file: &'a File,
    /// What it names of its crate, and on which line.
    named: Vec<(Path, usize)>,
    /// By which name it has what it imports, for others perhaps.
    imports: BTreeMap<String, Path>,
}

/// Who names whom in a folder, and where that is said.
type Edges = BTreeMap<(String, String), String>;

/// One line for each circle: its folder, its modules, and who names whom where. `files` are those of one crate.
pub(crate) fn circles(files: &[&File]) -> Vec<String> {
    let modules = modules(files);
    let mut folders: BTreeMap<Path, Edges> = BTreeMap::new();
    for (here, module) in &modules {
        for (path, line) in &module.named {
            let there = home(path, &modules, 0);
            let common = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (here.get(common), there.get(common)) {
                let edges = folders.entry(here[..common].to_vec()).or_default();
                let place = format!("{}:{line} names `{}`", module.file.path, path.join("::"));
                edges.entry((from.clone(), to.clone())).or_insert(place);
            }
        }
    }
    let mut found = Vec::new();
    for (folder, edges) in &folders {
        let folder = folder.join("::");
        let circles = circles_of(edges).into_iter();
        found.extend(circles.map(|circle| format!("a circle in `{folder}`: {circle}")));
    }
    found
}

/// What each file names and imports of its crate. A program's own main.rs is nobody's to name.
fn modules<'a>(files: &[&'a File]) -> BTreeMap<Path, Module<'a>> {
    let places: BTreeSet<Path> = files.iter().map(|file| module(&file.path)).collect();
    let mut modules = BTreeMap::new();
    for file in files {
        if file.path.ends_with("src/main.rs") {
            continue;
        }
        let here = module(&file.path);
        let inside = |found: Vec<(Path, usize)>| -> Vec<(Path, usize)> {
            let found = found.into_iter();
            found
                .filter_map(|(path, line)| Some((in_crate(path, &here, &places)?, line)))
                .collect()
        };
        let named = inside(paths(&file.tokens, &here));
        let imports = inside(imports(&file.tokens, &here)).into_iter();
        let imports = imports
            .filter_map(|(path, _)| Some((path.last()?.clone(), path)))
            .collect();
        let module = Module {
            file,
            named,
            imports,
        };
        modules.insert(here, module);
    }
    modules
}

/// A path from the top of the crate; nothing where it leads out of the crate.
fn in_crate(path: Path, here: &[String], places: &BTreeSet<Path>) -> Option<Path> {
    if path[0] == "crate" {
        return Some(path[1..].to_vec());
    }
    // `child::Name`, as a mod.rs may say.
    let child = [here, &path[..1]].concat();
    places.contains(&child).then(|| [here, &path[..]].concat())
}

/// The module in which stands what `path` names: where a module on the way only passes it on, the one that it has it from.
fn home(path: &[String], modules: &BTreeMap<Path, Module<'_>>, passed_on: usize) -> Path {
    let deepest = (0..=path.len()).rev();
    let mut found = deepest.filter(|&n| modules.contains_key(&path[..n]));
    let at = found.next().unwrap_or(0);
    let (place, rest) = path.split_at(at);
    let imports = modules.get(place).map(|module| &module.imports);
    let from = rest.first().and_then(|name| imports?.get(name));
    match from {
        Some(from) if passed_on < 8 && from != path => {
            home(&[from, &rest[1..]].concat(), modules, passed_on + 1)
        }
        _ => place.to_vec(),
    }
}

/// The modules of a folder that reach each other, and who names whom among them.
fn circles_of(edges: &Edges) -> Vec<String> {
    let mut told: BTreeSet<&String> = BTreeSet::new();
    let mut found = Vec::new();
    for (name, _) in edges.keys() {
        let reached = reached(edges, name);
        if told.contains(name) || !reached.contains(name) {
            continue;
        }
        let circle: BTreeSet<&String> = reached
            .into_iter()
            .filter(|other| self::reached(edges, other).contains(name))
            .collect();
        let inside = edges
            .iter()
            .filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
        let places: String = inside.map(|(_, place)| format!("\n    {place}")).collect();
        found.push(format!("{circle:?} name each other{places}"));
        told.extend(circle);
    }
    found
}

/// Whom a module names, whom those name, and so on.
fn reached<'a>(edges: &'a Edges, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for (_, to) in edges.keys().filter(|(from, _)| from == at) {
            if reached.insert(to) {
                next.push(to);
            }
        }
    }
    reached
}
