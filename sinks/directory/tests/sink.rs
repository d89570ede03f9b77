//! The sink with real files.

#![allow(clippy::unwrap_used)] // as in all tests; clippy does not see that helpers are tests

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use diolkos_istio::{Kind, Object, ObjectKey, Spec, WorkloadEntry, label};
use diolkos_sink_api::{
    Change, Observed, Outcome, Permit, Sink as _, State, WriteError, Writer as _,
};
use diolkos_sink_directory::{DirectorySink, write_stream};
use tempfile::TempDir;
use tokio::time::timeout;

/// Far above what anything here takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    directory: TempDir,
    sink: DirectorySink,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sink = DirectorySink::new(directory.path().to_owned());
        Self { directory, sink }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn put(&mut self, object: &Object) -> Result<Outcome, WriteError> {
        let hash = object.content_hash();
        let object = object.clone();
        self.one(Change::Put { object, hash }).await
    }

    async fn delete(&mut self, name: &str) -> Result<Outcome, WriteError> {
        self.one(Change::Delete(key(name))).await
    }

    async fn one(&mut self, change: Change) -> Result<Outcome, WriteError> {
        self.sink.writer().apply(change, &Permit::always()).await
    }

    async fn observe(&mut self) -> Vec<Observed> {
        let mut all = self.sink.observe().await.unwrap();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    async fn drift(&mut self) -> Vec<Observed> {
        timeout(PATIENCE, self.sink.drift()).await.unwrap().unwrap()
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::WorkloadEntry,
        namespace: "prod".into(),
        name: name.into(),
    }
}

fn object(name: &str, address: &str) -> Object {
    Object {
        key: key(name),
        labels: BTreeMap::from([
            (label::MANAGED_BY.to_owned(), label::MANAGER.to_owned()),
            (label::REGISTRY.to_owned(), "consul".to_owned()),
        ]),
        annotations: BTreeMap::new(),
        spec: Spec::WorkloadEntry(WorkloadEntry {
            address: address.to_owned(),
            ..WorkloadEntry::default()
        }),
    }
}

fn ours(object: &Object) -> Observed {
    Observed {
        key: object.key.clone(),
        state: State::Ours {
            registry: "consul".into(),
            hash: Some(object.content_hash()),
        },
    }
}

fn observed(name: &str, state: State) -> Observed {
    let key = key(name);
    Observed { key, state }
}

fn edited(name: &str) -> Observed {
    let registry = "consul".into();
    observed(
        name,
        State::Ours {
            registry,
            hash: None,
        },
    )
}

const A: &str = "prod_workloadentry_a.yaml";
const B: &str = "prod_workloadentry_b.yaml";
const THEIRS: &str = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: a, namespace: prod}\nspec: {address: 10.9.9.9}\n";

#[tokio::test]
async fn objects_are_created_updated_and_deleted() {
    let mut bed = Bed::new();
    let (a, b) = (object("a", "10.0.0.1"), object("b", "10.0.0.2"));
    assert_eq!(bed.observe().await, []);
    assert_eq!(bed.put(&a).await, Ok(Outcome::Created));
    assert_eq!(bed.put(&b).await, Ok(Outcome::Created));
    assert_eq!(bed.observe().await, [ours(&a), ours(&b)]);

    let a = object("a", "10.0.0.10");
    assert_eq!(bed.put(&a).await, Ok(Outcome::Updated));
    assert_eq!(bed.delete("b").await, Ok(Outcome::Deleted));
    assert_eq!(bed.delete("b").await, Ok(Outcome::AlreadyGone));
    assert_eq!(bed.observe().await, [ours(&a)]);
    assert_eq!(bed.files(), [A]);
}

#[tokio::test]
async fn a_new_process_sees_what_the_old_one_wrote() {
    let mut bed = Bed::new();
    let a = object("a", "10.0.0.1");
    bed.put(&a).await.unwrap();
    let before = fs::read(bed.path(A)).unwrap();
    bed.sink = DirectorySink::new(bed.directory.path().to_owned());
    assert_eq!(bed.observe().await, [ours(&a)]);
    // And the bytes are the same, if it writes the same.
    assert_eq!(bed.put(&a).await, Ok(Outcome::Updated));
    assert_eq!(fs::read(bed.path(A)).unwrap(), before);
}

#[tokio::test]
async fn files_of_others_stay() {
    let mut bed = Bed::new();
    bed.write("gateway.yaml", "kind: Gateway\n");
    bed.write("README", "ours\n");
    for theirs in [THEIRS, "kind: Gateway\n", "half: [", ""] {
        bed.write(A, theirs);
        assert_eq!(bed.observe().await, [observed("a", State::Foreign)]);
        let put = bed.put(&object("a", "10.0.0.1")).await.unwrap_err();
        assert!(matches!(put, WriteError::Foreign(_)), "{put:?}");
        let delete = bed.delete("a").await.unwrap_err();
        assert!(matches!(delete, WriteError::Foreign(_)), "{delete:?}");
        assert_eq!(fs::read_to_string(bed.path(A)).unwrap(), theirs);
    }
    assert_eq!(bed.files(), ["README", "gateway.yaml", A]);
}

/// Our own file under the name of another object is not that object.
#[tokio::test]
async fn a_copy_is_foreign() {
    let mut bed = Bed::new();
    let a = object("a", "10.0.0.1");
    bed.put(&a).await.unwrap();
    fs::copy(bed.path(A), bed.path(B)).unwrap();
    fs::copy(bed.path(A), bed.path("backup.yaml")).unwrap();
    assert_eq!(
        bed.observe().await,
        [ours(&a), observed("b", State::Foreign)]
    );
}

/// The check counts that is made at the moment of the write.
#[tokio::test]
async fn a_file_that_appears_before_the_write_stays() {
    let mut bed = Bed::new();
    assert_eq!(bed.observe().await, []);
    bed.write(A, THEIRS);
    let put = bed.put(&object("a", "10.0.0.1")).await.unwrap_err();
    assert_eq!(put.category(), "ForeignObject");
    assert_eq!(fs::read_to_string(bed.path(A)).unwrap(), THEIRS);
}

#[tokio::test]
async fn drift_tells_what_others_did_and_not_what_we_did() {
    let mut bed = Bed::new();
    bed.observe().await;
    let (a, b) = (object("a", "10.0.0.1"), object("b", "10.0.0.2"));
    bed.put(&a).await.unwrap();
    bed.put(&b).await.unwrap();
    bed.put(&object("c", "10.0.0.3")).await.unwrap();
    bed.delete("c").await.unwrap();

    let content = fs::read_to_string(bed.path(A)).unwrap();
    bed.write(A, &content.replace("10.0.0.1", "10.66.66.66"));
    // Our own writes would be in the answer, if they were taken for those of others.
    assert_eq!(bed.drift().await, [edited("a")]);

    bed.put(&a).await.unwrap();
    fs::remove_file(bed.path(B)).unwrap();
    assert_eq!(bed.drift().await, [observed("b", State::Gone)]);

    bed.write("prod_workloadentry_c.yaml", "theirs\n");
    assert_eq!(bed.drift().await, [observed("c", State::Foreign)]);
    fs::remove_file(bed.path("prod_workloadentry_c.yaml")).unwrap();
    assert_eq!(bed.drift().await, [observed("c", State::Gone)]);
}

/// The loop drops the future whenever something else happens.
#[tokio::test]
async fn drift_may_be_dropped_at_any_time() {
    let mut bed = Bed::new();
    bed.observe().await;
    bed.put(&object("a", "10.0.0.1")).await.unwrap();
    fs::remove_file(bed.path(A)).unwrap();
    let told = async {
        loop {
            // Shorter than the time between two looks.
            if let Ok(told) = timeout(Duration::from_millis(100), bed.sink.drift()).await {
                break told.unwrap();
            }
        }
    };
    let told = timeout(PATIENCE, told).await.unwrap();
    assert_eq!(told, [observed("a", State::Gone)]);
}

#[tokio::test]
async fn half_written_files_of_a_crash_are_ignored_and_removed() {
    let mut bed = Bed::new();
    let old = SystemTime::now() - Duration::from_secs(3600);
    for name in [
        ".diolkos-dead.tmp",
        ".other.tmp",
        "diolkos-x.tmp",
        ".diolkos-x",
    ] {
        bed.write(name, "half: [");
        let file = File::options().write(true).open(bed.path(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    // Perhaps another process writes this one right now.
    bed.write(".diolkos-busy.tmp", "half: [");
    assert_eq!(bed.observe().await, []);
    let left = [
        ".diolkos-busy.tmp",
        ".diolkos-x",
        ".other.tmp",
        "diolkos-x.tmp",
    ];
    assert_eq!(bed.files(), left);
}

#[tokio::test]
async fn long_names_are_known_again() {
    let mut bed = Bed::new();
    let long = object(&"a".repeat(253), "10.0.0.1");
    assert_eq!(bed.put(&long).await, Ok(Outcome::Created));
    assert_eq!(bed.observe().await, [ours(&long)]);
    assert_eq!(bed.put(&long).await, Ok(Outcome::Updated));
}

#[tokio::test]
async fn files_may_be_read_by_others() {
    let mut bed = Bed::new();
    bed.put(&object("a", "10.0.0.1")).await.unwrap();
    let plain = bed.path("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    // Whatever the umask is: as for any new file.
    assert_eq!(mode(bed.path(A)), mode(plain));
}

#[tokio::test]
async fn a_missing_directory_is_an_error() {
    let mut bed = Bed::new();
    fs::remove_dir(bed.directory.path()).unwrap();
    let error = bed.sink.observe().await.unwrap_err();
    assert!(error.0.contains("cannot read"), "{error}");
    let error = bed.put(&object("a", "10.0.0.1")).await.unwrap_err();
    let WriteError::Retry { reason, .. } = error else {
        panic!("{error:?}")
    };
    assert!(reason.contains(A), "{reason}");
    fs::create_dir(bed.directory.path()).unwrap();
    assert_eq!(
        bed.put(&object("a", "10.0.0.1")).await,
        Ok(Outcome::Created)
    );
}

#[test]
fn the_stream_is_sorted_and_the_same_each_time() {
    let objects = [object("b", "10.0.0.2"), object("a", "10.0.0.1")];
    let stream = |objects: &[Object]| {
        let mut out = Vec::new();
        write_stream(objects, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = stream(&objects);
    insta::assert_snapshot!(text);
    let [b, a] = objects;
    assert_eq!(stream(&[a, b]), text);
    assert_eq!(stream(&[]), "");
}
