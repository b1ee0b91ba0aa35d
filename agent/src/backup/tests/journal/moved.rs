//! Directories that are moved while it is found out which files have writers: none of those is forgotten.

use super::*;

/// What is done about a directory before the journal looks at it.
#[derive(Debug, Clone, Copy)]
enum Moved {
    /// Another has its place.
    Replaced,
    /// With one that has a file of the same name.
    Exchanged,
}

impl Bench {
    fn journals(&self) -> &Journals {
        self.options.journals.as_ref().unwrap()
    }

    /// Maps a file for writing, and waits until its stamp is old enough to be believed.
    fn map(&self, path: &str) -> Mapping {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.at(path));
        let mapping = Mapping::of(&file.unwrap());
        std::thread::sleep(Duration::from_millis(3200));
        mapping
    }

    /// Then what could wait is done.
    fn move_meanwhile(&self, moved: Moved) {
        match moved {
            Moved::Replaced => {
                fs::rename(self.at("p"), self.at("q")).unwrap();
                fs::create_dir(self.at("p")).unwrap();
            }
            Moved::Exchanged => {
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, self.at("p"), CWD, self.at("q"), flags).unwrap();
            }
        }
        self.journals().hold_tending(false);
        self.journals().await_tending();
    }

    /// Stores through the mapping are in the next snapshot.
    async fn stores_are_seen(&self, mapping: &Mapping) {
        assert_eq!(self.run().await.walk, None);
        for n in 1..4 {
            mapping.store(9, n);
            assert_eq!(self.run().await.walk, None);
        }
    }
}

async fn bench(moved: Moved) -> Bench {
    let bench = Bench::new_in(Path::new("/var/tmp")).await;
    let bench = bench.with_journals(&Kind::ALL);
    bench.write("p/file", noise(1, 8192));
    if let Moved::Exchanged = moved {
        bench.write("q/file", noise(2, 8192));
        bench.write("q/later", noise(3, 8192));
    }
    bench
}

async fn before_files_are_forgotten(moved: Moved) {
    let bench = bench(moved).await;
    bench.run().await;
    until_trusted(&bench).await;
    bench.write("p/later", noise(4, 8192));
    let mapping = bench.map("p/later");
    bench.journals().await_tending();
    bench.journals().hold_tending(true);
    assert_eq!(bench.run().await.walk, None);
    bench.move_meanwhile(moved);
    bench.stores_are_seen(&mapping).await;
}

async fn before_it_is_probed(moved: Moved) {
    let bench = bench(moved).await;
    let mapping = bench.map("p/file");
    bench.journals().hold_tending(true);
    bench.run().await;
    bench.move_meanwhile(moved);
    bench.stores_are_seen(&mapping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_replaced_before_files_are_forgotten() {
    before_files_are_forgotten(Moved::Replaced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_exchanged_before_files_are_forgotten() {
    before_files_are_forgotten(Moved::Exchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_replaced_before_it_is_probed() {
    before_it_is_probed(Moved::Replaced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_exchanged_before_it_is_probed() {
    before_it_is_probed(Moved::Exchanged).await;
}
