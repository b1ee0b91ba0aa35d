use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Whether they were spilled, and names with their inode numbers and types, some at a time.
fn sorted(budget_bytes: usize, names: &[(Vec<u8>, u64)]) -> (bool, Vec<(Vec<u8>, u64, FileType)>) {
    let directory: Arc<Path> = std::env::temp_dir().into();
    let mut sorter = NameSorter::new(directory, budget_bytes, Names::default());
    for (name, ino) in names {
        sorter.push(name, FileType::Directory, *ino).unwrap();
    }
    let spilled = sorter.spilled();
    let mut sorted = sorter.finish().unwrap();
    let (mut out, mut some) = (Vec::new(), Names::default());
    while !sorted.is_done() {
        sorted.take(7, &mut some).unwrap();
        assert!(some.len() == 7 || (some.len() > 0 && sorted.is_done()));
        out.extend(
            some.iter()
                .map(|it| (it.name.to_vec(), it.ino, it.file_type)),
        );
    }
    sorted.take(7, &mut some).unwrap();
    assert_eq!(some.len(), 0);
    (spilled, out)
}

proptest! {
    #[test]
    fn equals_a_sorted_map_with_and_without_spilling(
        names in proptest::collection::vec(("[a-c\\x01]{1,12}", any::<u64>()), 0..300),
        budget in 64usize..4000,
    ) {
        let names: Vec<_> = names.into_iter().map(|(n, i)| (n.into_bytes(), i)).collect();
        let model: BTreeMap<_, _> = names.iter().cloned().collect();
        for budget in [budget, 1 << 20] {
            let (_, found) = sorted(budget, &names);
            let found: Vec<_> = found.into_iter().map(|(name, ..)| name).collect();
            prop_assert_eq!(&found, &model.keys().cloned().collect::<Vec<_>>());
        }
    }
}

#[test]
fn hints_survive_a_spill() {
    let names: Vec<_> = (0..20_000u64)
        .map(|n| {
            (
                format!("{:0w$}", n * 7919 % 20_000, w = 5 + (n % 250) as usize).into_bytes(),
                n,
            )
        })
        .collect();
    let inos: BTreeMap<_, _> = names.iter().cloned().collect();
    let (spilled, found) = sorted(100_000, &names);
    assert!(spilled);
    assert_eq!(found.len(), inos.len());
    for (found, (name, ino)) in found.iter().zip(inos) {
        assert_eq!(found, &(name, ino, FileType::Directory));
    }
}

/// Bytes that a sorter, or a merge of what it wrote, has taken from the allocator.
fn taken(names: &Names) -> usize {
    names.arena.capacity() + names.slots.capacity() * size_of::<Slot>()
}

#[test]
fn five_million_names_take_a_bounded_memory() {
    const NAMES: u64 = 5_000_000;
    const BUDGET: usize = 1 << 20;
    // Coprime to the number: every name once, in no order.
    let name = |n: u64| format!("an-entry-with-a-name-of-some-length-{:07}", n % NAMES);
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut sorter = NameSorter::new(directory.path().into(), BUDGET, Names::default());
    let mut most = 0;
    for n in 0..NAMES {
        let n = n * 2_236_067;
        sorter
            .push(name(n).as_bytes(), FileType::RegularFile, n)
            .unwrap();
        most = most.max(taken(&sorter.names));
    }
    // A vector grows by doubling.
    assert!(most <= 2 * BUDGET, "{most} bytes to sort");
    let mut sorted = sorter.finish().unwrap();
    let mut one = Names::default();
    for n in 0..NAMES {
        sorted.take(1, &mut one).unwrap();
        assert_eq!(one.get(0).name, name(n).as_bytes());
        if n % 500_000 == 0
            && let SortedNames::Merge(merge) = &sorted
        {
            let of = |run: &Run| run.buffer.capacity() + run.name.capacity() + size_of::<Run>();
            let runs: usize = merge.runs.iter().map(of).sum();
            assert!(runs <= 2 * BUDGET, "{runs} bytes to merge");
        }
    }
    assert!(sorted.is_done());
    assert!(matches!(sorted, SortedNames::Merge(_)));
}
