//! Who imports whom, read from the sources' tokens: comments, texts and tests' modules do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Of a module, from the crate's root on. The root is empty.
pub type Module = Vec<String>;

/// A room's children, and whom of the same room each imports, with a file in which it does.
pub type Room = BTreeMap<String, BTreeMap<String, PathBuf>>;

pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The module that a file holds; nothing for a program's main file and for tests.
fn module(relative: &Path) -> Option<Module> {
    let mut names: Module = relative.iter().map(|name| name.to_string_lossy().trim_end_matches(".rs").into()).collect();
    if names.iter().any(|name| name == "tests") || names == ["main"] {
        return None;
    }
    names.pop_if(|last| last == "mod" || last == "lib");
    Some(names)
}

/// A path as it is written, from `crate`, `self`, `super` or a name on.
type Written = Vec<String>;

/// All paths of a text, each with the inline modules around it.
#[derive(Default)]
struct Paths {
    found: Vec<(Module, Written)>,
    /// What `use` makes known in a module, under which name.
    known: Vec<(Module, String, Written)>,
}

impl Paths {
    fn read(&mut self, tokens: TokenStream, inside: &Module) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut index = 0;
        let mut only_for_tests = false;
        while index < tokens.len() {
            match &tokens[index] {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    if let Some(TokenTree::Group(attribute)) = tokens.get(index + 1) {
                        only_for_tests |= attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                        index += 1;
                    }
                    index += 1;
                }
                // The item after `#[cfg(test)]`: up to its body or its semicolon.
                _ if only_for_tests => {
                    let ends = |token: &TokenTree| match token {
                        TokenTree::Punct(mark) => mark.as_char() == ';',
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        _ => false,
                    };
                    index = tokens[index..].iter().position(ends).map_or(tokens.len(), |at| index + at + 1);
                    only_for_tests = false;
                }
                TokenTree::Ident(name) if name == "mod" => match (tokens.get(index + 1), tokens.get(index + 2)) {
                    (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => {
                        let mut deeper = inside.clone();
                        deeper.push(name.to_string());
                        self.read(body.stream(), &deeper);
                        index += 3;
                    }
                    _ => index += 1,
                },
                TokenTree::Ident(name) if name == "use" => {
                    let end =
                        tokens[index..].iter().position(|token| is(token, ';')).map_or(tokens.len(), |at| index + at);
                    self.import(&tokens[index + 1..end], &[], inside);
                    index = end;
                }
                TokenTree::Ident(first) => {
                    let mut written = vec![first.to_string()];
                    let mut next = index + 1;
                    while let Some([TokenTree::Punct(a), TokenTree::Punct(b), TokenTree::Ident(name)]) =
                        tokens.get(next..next + 3)
                        && (a.as_char(), b.as_char()) == (':', ':')
                    {
                        written.push(name.to_string());
                        next += 3;
                    }
                    if written.len() > 1 {
                        self.found.push((inside.clone(), written));
                    }
                    index = next;
                }
                TokenTree::Group(group) => {
                    self.read(group.stream(), inside);
                    index += 1;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => index += 1,
            }
        }
    }

    /// A tree of imports.
    fn import(&mut self, tokens: &[TokenTree], prefix: &[String], inside: &Module) {
        for branch in tokens.split(|token| is(token, ',')) {
            let mut written = prefix.to_vec();
            let mut alias = None;
            let mut tokens = branch.iter();
            while let Some(token) = tokens.next() {
                match token {
                    TokenTree::Ident(name) if name == "as" => alias = tokens.next().map(ToString::to_string),
                    TokenTree::Ident(name) if name != "self" || written.is_empty() => written.push(name.to_string()),
                    TokenTree::Group(group) => {
                        self.import(&group.stream().into_iter().collect::<Vec<_>>(), &written, inside);
                        written.clear();
                    }
                    TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            if let Some(last) = written.last() {
                self.known.push((inside.clone(), alias.unwrap_or_else(|| last.clone()), written.clone()));
                self.found.push((inside.clone(), written));
            }
        }
    }
}

fn is(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == mark)
}

/// Where a path leads from a module, if into the same crate.
fn absolute(from: &[String], written: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut at = from.to_vec();
    let mut rest = written;
    match rest[0].as_str() {
        "crate" => at.clear(),
        "self" => {}
        "super" => {
            at.pop();
        }
        child => {
            at.push(child.to_owned());
            // Another crate, or a name of this file.
            if !modules.contains(&at) {
                return None;
            }
        }
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|name| name == "super") {
        at.pop();
        rest = &rest[1..];
    }
    at.extend_from_slice(rest);
    Some(at)
}

/// The rooms of a crate, by their modules.
pub fn rooms(src: &Path) -> BTreeMap<Module, Room> {
    let mut files = BTreeMap::new();
    for path in sources(src) {
        if let Some(module) = module(path.strip_prefix(src).unwrap()) {
            let text = fs::read_to_string(&path).unwrap();
            let mut paths = Paths::default();
            let tokens = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            paths.read(tokens, &module);
            files.insert(module, (path, paths));
        }
    }
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let mut known = HashMap::new();
    for (_, paths) in files.values() {
        for (inside, name, written) in &paths.known {
            if let Some(target) = absolute(inside, written, &modules) {
                let mut named = inside.clone();
                named.push(name.clone());
                known.insert(named, target);
            }
        }
    }
    let mut rooms: BTreeMap<Module, Room> = BTreeMap::new();
    for module in &modules {
        if let Some((name, room)) = module.split_last() {
            rooms.entry(room.to_vec()).or_default().entry(name.clone()).or_default();
        }
    }
    for (module, (file, paths)) in &files {
        for (inside, written) in &paths.found {
            let Some(mut target) = absolute(inside, written, &modules) else { continue };
            // What a room only passes on is imported from where it is.
            for _ in 0..8 {
                let passed = (1..=target.len()).find_map(|end| {
                    let at = known.get(&target[..end]).filter(|at| **at != target[..end])?;
                    Some([at.as_slice(), &target[end..]].concat())
                });
                match passed {
                    Some(at) => target = at,
                    None => break,
                }
            }
            while !modules.contains(&target) {
                target.pop();
            }
            let shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if shared < module.len() && shared < target.len() {
                let room = rooms.get_mut(&module[..shared]).expect("both are in it");
                let importer = room.get_mut(&module[shared]).expect("it is there");
                importer.entry(target[shared].clone()).or_insert_with(|| file.clone());
            }
        }
    }
    rooms
}

/// A way from a child of a room back to itself.
pub fn circle(room: &Room) -> Option<Vec<&str>> {
    fn walk<'a>(room: &'a Room, at: &'a str, way: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> bool {
        if let Some(begin) = way.iter().position(|name| *name == at) {
            way.drain(..begin);
            way.push(at);
            return true;
        }
        way.push(at);
        if done.insert(at) && room[at].keys().any(|next| walk(room, next, way, done)) {
            return true;
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    room.keys().find_map(|name| {
        let mut way = Vec::new();
        walk(room, name, &mut way, &mut done).then_some(way)
    })
}
