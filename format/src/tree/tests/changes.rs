//! Changes of a run against a plain map of paths: the same tree, or the same refusal.

use super::*;
use crate::codec::{decode_entry, encode_entry};
use crate::delta::Change;
use crate::entry::{Content, Entry, Kind};
use crate::path::RelPath;

type Paths = BTreeMap<RelPath, Entry>;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn entry(kind: Kind, mode: u32) -> Entry {
    Entry {
        kind,
        mode,
        uid: 1,
        gid: 2,
        mtime_ns: 3,
        size: 0,
        xattrs: Vec::new(),
        target: match kind {
            Kind::Symlink => Bytes::from_static(b"target"),
            _ => Bytes::new(),
        },
        rdev: 0,
        content: Content::Empty,
        hardlink: None,
    }
}

fn directory() -> Entry {
    entry(Kind::Directory, 0o755)
}

fn file() -> Entry {
    entry(Kind::File, 0o644)
}

fn put(text: &str, entry: Entry) -> Change {
    Change::Put(path(text), Box::new(entry))
}

fn remove(text: &str) -> Change {
    Change::Remove(path(text))
}

/// What the changes make of the map; the rule that is broken otherwise.
fn oracle(map: &Paths, changes: &[Change]) -> Result<Paths, ()> {
    let mut out = map.clone();
    // All that is put or removed takes effect at once: first what goes, by what was there.
    for change in changes {
        let was_directory = map
            .get(change.path())
            .is_some_and(|entry| entry.kind == Kind::Directory);
        let stays = matches!(change, Change::Put(_, entry) if entry.kind == Kind::Directory);
        if was_directory && !stays {
            out.retain(|path, _| path == change.path() || !path.is_within(change.path()));
        }
        if matches!(change, Change::Remove(_)) {
            out.remove(change.path());
        }
    }
    for change in changes {
        match change {
            Change::Remove(path) if path.is_root() => return Err(()),
            Change::Remove(_) => {}
            Change::Put(path, entry) => {
                let parent = path.parent().map(|parent| out.get(&parent));
                let is_directory = match parent {
                    Some(Some(parent)) => parent.kind == Kind::Directory,
                    Some(None) => false,
                    None => entry.kind == Kind::Directory,
                };
                if !is_directory {
                    return Err(());
                }
                out.insert(path.clone(), Entry::clone(entry));
            }
        }
    }
    match out.contains_key(&RelPath::root()) {
        true => Ok(out),
        false => Err(()),
    }
}

fn tree_of(map: &Paths) -> (Root, MemoryNodes) {
    let ids = ids();
    let mut nodes = MemoryNodes::default();
    let mut builder = TreeBuilder::new(&ids, &mut nodes);
    for (path, entry) in map {
        let value = encode_entry(entry).unwrap();
        builder.push(&path.to_key(), &value).unwrap();
    }
    (builder.finish().unwrap(), nodes)
}

fn run(map: &Paths, changes: &[Change]) -> Result<(Root, MemoryNodes), FormatError> {
    let ids = ids();
    let (root, mut nodes) = tree_of(map);
    let parent = (!map.is_empty()).then_some(&root.id);
    let mut new = MemoryNodes::default();
    let row = changes.iter().cloned().map(Ok::<_, FormatError>);
    let root = apply(&ids, &nodes, parent, row, &mut new)?.root;
    nodes.nodes.extend(new.nodes);
    Ok((root, nodes))
}

fn check(map: &Paths, changes: &[Change]) {
    match (run(map, changes), oracle(map, changes)) {
        (Ok((root, nodes)), Ok(expected)) => {
            let found: Paths = read(&nodes, &root)
                .into_iter()
                .map(|(key, value)| {
                    let path = RelPath::from_key(&key).unwrap();
                    (path, decode_entry(&value).unwrap())
                })
                .collect();
            assert_eq!(found, expected);
            assert_eq!(root, tree_of(&expected).0);
        }
        (Err(FormatError::Change { .. }), Err(())) => {}
        (Ok(_), Err(())) => panic!("accepted what breaks a rule: {changes:?}"),
        (Err(error), _) => panic!("{error} for {changes:?} of {:?}", map.keys()),
    }
}

fn paths() -> impl Strategy<Value = RelPath> {
    // `-` and `a-`: a name that sorts between a directory and its subtree as text, not as key.
    let name = prop_oneof![Just("a"), Just("b"), Just("a-"), Just("\u{1}"), Just("c")];
    proptest::collection::vec(name, 0..5).prop_map(|names| path(&names.join("/")))
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Directory),
        2 => Just(Kind::File),
        1 => Just(Kind::Symlink),
    ]
}

/// A map in which every parent is a directory.
fn whole_maps() -> impl Strategy<Value = Paths> {
    proptest::collection::btree_map(paths(), kinds(), 0..40).prop_map(|picked| {
        let mut out = Paths::from([(RelPath::root(), directory())]);
        for (path, kind) in picked {
            let parent = path.parent().and_then(|parent| out.get(&parent));
            if parent.is_some_and(|parent| parent.kind == Kind::Directory) {
                out.insert(path, entry(kind, 0o700));
            }
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn changes_of_any_kind_give_the_map_or_a_refusal(
        map in whole_maps(),
        picked in proptest::collection::btree_map(paths(), proptest::option::of(kinds()), 0..12),
    ) {
        let changes: Vec<_> = picked
            .into_iter()
            .map(|(path, kind)| match kind {
                Some(kind) => Change::Put(path, Box::new(entry(kind, 0o600))),
                None => Change::Remove(path),
            })
            .collect();
        check(&map, &changes);
    }

    #[test]
    fn what_leads_from_one_map_to_another_is_accepted(from in whole_maps(), to in whole_maps()) {
        let both: std::collections::BTreeSet<_> = from.keys().chain(to.keys()).collect();
        let changes: Vec<_> = both
            .into_iter()
            .filter(|path| from.get(*path) != to.get(*path))
            .map(|path| match to.get(path) {
                Some(entry) => Change::Put(path.clone(), Box::new(entry.clone())),
                None => Change::Remove(path.clone()),
            })
            .collect();
        let (root, _) = run(&from, &changes).unwrap();
        prop_assert_eq!(root, tree_of(&to).0);
        // Without a parent, puts alone make it.
        let puts: Vec<_> = to
            .iter()
            .map(|(path, entry)| Change::Put(path.clone(), Box::new(entry.clone())))
            .collect();
        prop_assert_eq!(run(&Paths::new(), &puts).unwrap().0, tree_of(&to).0);
    }
}

#[test]
fn removals_come_in_key_order_among_the_edits() {
    let names = ["", "a", "a/x", "a/x/1", "a/y", "b", "b/z", "c", "c/w", "d"];
    let map: Paths = names.iter().map(|text| (path(text), directory())).collect();
    let changes = [
        remove("a"),
        put("c", file()),
        put("d", entry(Kind::Directory, 0o711)),
        put("b/z", file()),
        put("d/new", file()),
    ];
    let ids = ids();
    let (root, nodes) = tree_of(&map);
    let row = changes.into_iter().map(Ok::<_, FormatError>);
    let edits: Vec<_> = Applier::new(&ids, &nodes, &root.id)
        .edits(row)
        .map(Result::unwrap)
        .collect();
    assert!(edits.windows(2).all(|pair| pair[0].key() < pair[1].key()));
    let prefixes: Vec<_> = edits
        .iter()
        .filter(|edit| matches!(edit, Edit::RemovePrefix(_)))
        .map(Edit::key)
        .collect();
    assert_eq!(prefixes, [&b"a\0"[..], b"b\0z\0", b"c\0"]);
}

#[test]
fn each_rule_is_named() {
    let map = Paths::from([
        (path(""), directory()),
        (path("d"), directory()),
        (path("d/f"), file()),
        (path("f"), file()),
    ]);
    let link = |target: &str| Entry {
        hardlink: Some(path(target)),
        ..file()
    };
    let cases: &[(&[Change], &str)] = &[
        (&[put("f", file()), put("a", file())], "not in key order"),
        (&[put("f", file()), remove("f")], "repeated"),
        (&[remove("")], "cannot be removed"),
        (&[put("", file())], "the root is no directory"),
        (&[put("f/x", file())], "parent is no directory"),
        (&[put("nothing/x", file())], "parent is no directory"),
        (&[remove("d"), put("d/x", file())], "parent is no directory"),
        (
            &[put("d", file()), put("d/x", file())],
            "parent is no directory",
        ),
        (
            &[put("n", directory()), put("n/m/x", file())],
            "parent is no directory",
        ),
        (&[put("a", link("a"))], "not before it"),
        (&[put("a", link("d/f"))], "not before it"),
    ];
    for (changes, rule) in cases {
        let error = run(&map, changes).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}, not {rule}");
    }
    assert!(run(&map, &[put("d/g", link("f"))]).is_ok());
    // The first tree needs its root before all.
    assert!(run(&Paths::new(), &[]).is_err());
    assert!(run(&Paths::new(), &[put("f", file())]).is_err());
    assert!(run(&Paths::new(), &[remove("f")]).is_err());
    let mut bad = file();
    bad.mode = 0o10000;
    let error = run(&map, &[put("d/f", bad)]).unwrap_err();
    assert!(error.to_string().starts_with("entry d/f"), "{error}");
}

#[test]
fn an_error_of_the_changes_ends_the_edits() {
    let ids = ids();
    let (root, nodes) = tree_of(&Paths::from([(path(""), directory())]));
    let row = [
        Ok(put("a", file())),
        Err(FormatError::NodeMissing(root.id)),
        Ok(put("b", file())),
    ];
    let edits: Vec<_> = Applier::new(&ids, &nodes, &root.id)
        .edits(row.into_iter())
        .collect();
    assert!(matches!(
        &edits[..],
        [Ok(Edit::Put(..)), Err(FormatError::NodeMissing(_))]
    ));
}

/// Names side by side share most of their bytes.
#[test]
fn many_directories_side_by_side_wait_in_little_memory() {
    let ids = ids();
    let nodes = MemoryNodes::default();
    let mut applier = Applier::new(&ids, &nodes, &Root::empty(&ids).id);
    applier.accept(&put("", directory())).unwrap();
    let count = 100_000;
    for n in 0..count {
        applier
            .accept(&put(&format!("some-directory-{n:07}"), directory()))
            .unwrap();
        while applier.next_edit().is_some() {}
    }
    assert!(
        applier.waiting_bytes() < count * 4,
        "{}",
        applier.waiting_bytes()
    );
    for n in 0..count {
        let name = format!("some-directory-{n:07}/file");
        applier.accept(&put(&name, file())).unwrap();
        while applier.next_edit().is_some() {}
    }
    applier.finish().unwrap();
    assert_eq!(applier.waiting_bytes(), 0);
}
