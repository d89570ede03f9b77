//! Each test steps the polls by hand: no clock is involved.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

struct Bed {
    directory: TempDir,
    files: Files,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new("file".into(), directory.path().to_owned());
        Self { directory, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// One look, and all that is known after it.
    fn look(&mut self) -> View {
        self.files.poll(false).unwrap();
        self.files.view()
    }

    /// Two looks: what did not change between them is taken over.
    fn settle(&mut self) -> View {
        self.look();
        self.look()
    }
}

fn service(name: &str, address: &str) -> String {
    format!("name: {name}\ninstances:\n- address: {address}\n  port: 80\n---\n")
}

fn names(view: &View) -> Vec<String> {
    view.services.keys().map(name_of).collect()
}

fn addresses(view: &View) -> Vec<String> {
    let instances = view.services.values().flat_map(|s| s.instances.iter());
    instances.map(|i| i.address.to_string()).collect()
}

#[test]
fn files_are_read_edited_and_removed() {
    let mut bed = Bed::new();
    bed.write(
        "a.yaml",
        &(service("one", "10.0.0.1") + &service("two", "10.0.0.2")),
    );
    bed.write("b.json", r#"{"name": "three"}"#);
    let view = bed.settle();
    assert_eq!(names(&view), ["one", "three", "two"]);
    assert_eq!(
        (view.files, view.faults.len(), view.settling),
        (2, 0, false)
    );

    bed.write("a.yaml", &service("one", "10.0.0.10"));
    let view = bed.settle();
    assert_eq!(names(&view), ["one", "three"]);
    assert_eq!(addresses(&view), ["10.0.0.10"]);

    bed.remove("a.yaml");
    assert_eq!(names(&bed.settle()), ["three"]);
}

#[test]
fn without_a_change_there_is_nothing_to_say() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.write("b.yaml", "nome: x\n");
    bed.settle();
    for _ in 0..5 {
        assert!(bed.files.poll(false).unwrap().is_none());
    }
    let again = bed.files.poll(true).unwrap().unwrap();
    assert_eq!(names(&again), ["one"]);
}

#[test]
fn other_files_are_ignored() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    for name in [
        ".a.yaml.swp",
        ".hidden.yaml",
        "a.yaml~",
        "#a.yaml#",
        "4913",
        "README.md",
    ] {
        bed.write(name, "name: not-ours\n");
    }
    fs::create_dir(bed.path("directory.yaml")).unwrap();
    let view = bed.settle();
    assert_eq!((names(&view), view.files), (vec!["one".to_owned()], 1));
    assert_eq!(view.faults, [""; 0]);
}

#[test]
fn a_bad_edit_leaves_the_services_and_names_the_line() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.write("b.yaml", &service("two", "10.0.0.2"));
    bed.settle();
    bed.write("a.yaml", "name: one\ninstances:\n- adress: 10.0.0.1\n");
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(view.faults.len(), 1);
    assert!(
        view.faults[0].starts_with("a.yaml:3:3: unknown field `adress`"),
        "{view:?}"
    );

    // The other file goes on, and so does this one when it is mended.
    bed.write("b.yaml", &service("two", "10.0.0.20"));
    assert_eq!(addresses(&bed.settle()), ["10.0.0.1", "10.0.0.20"]);
    bed.write("a.yaml", &service("one", "10.0.0.10"));
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.10", "10.0.0.20"]);
    assert_eq!(view.faults, [""; 0]);
}

/// A prefix of a good file is often a good file: cut at each byte, with looks in between that come
/// as fast as the writes, nothing may ever be missing.
#[test]
fn a_torn_write_is_never_seen() {
    let mut bed = Bed::new();
    let old = service("one", "10.0.0.1") + &service("two", "10.0.0.2");
    bed.write("a.yaml", &old);
    bed.settle();
    let new = service("one", "10.0.0.10") + &service("two", "10.0.0.20");
    for end in 0..new.len() {
        bed.write("a.yaml", &new[..end]);
        let view = bed.look();
        assert_eq!(addresses(&view), ["10.0.0.1", "10.0.0.2"], "at {end}");
        assert!(view.settling, "at {end}");
    }
    bed.write("a.yaml", &new);
    assert_eq!(addresses(&bed.settle()), ["10.0.0.10", "10.0.0.20"]);
}

/// A writer that hangs in the middle: what does not parse changes nothing.
#[test]
fn a_write_that_stops_halfway_is_a_fault() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    bed.write("a.yaml", "name: one\ninstances:\n- address: \"10.0.");
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.1"]);
    assert!(view.faults[0].contains("unclosed quote"), "{view:?}");
}

#[test]
fn an_empty_file_says_nothing() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    for empty in ["", "\n \n"] {
        bed.write("a.yaml", empty);
        let view = bed.settle();
        assert_eq!(names(&view), ["one"]);
        assert!(
            view.faults[0].starts_with("a.yaml: the file is empty"),
            "{view:?}"
        );
    }
    bed.write("a.yaml", "# no services any more\n");
    let view = bed.settle();
    assert_eq!((names(&view).len(), view.faults.len()), (0, 0));
}

/// As `vim` saves: away with the old file, then a new one. Looks in between see none.
#[test]
fn an_editor_that_moves_the_file_away_removes_nothing() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    fs::rename(bed.path("a.yaml"), bed.path("a.yaml~")).unwrap();
    assert_eq!(names(&bed.look()), ["one"]);
    bed.write("a.yaml", &service("one", "10.0.0.10"));
    assert_eq!(addresses(&bed.look()), ["10.0.0.1"]);
    assert_eq!(addresses(&bed.look()), ["10.0.0.10"]);
}

#[test]
fn an_atomic_replacement_is_seen() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    bed.write(".a.yaml.tmp", &service("one", "10.0.0.2"));
    fs::rename(bed.path(".a.yaml.tmp"), bed.path("a.yaml")).unwrap();
    assert_eq!(addresses(&bed.settle()), ["10.0.0.2"]);
}

/// A generator that replaces the file before each look still gets through.
#[test]
fn a_file_that_is_replaced_all_the_time_is_read() {
    let mut bed = Bed::new();
    let replace = |bed: &Bed, i: u32| {
        bed.write(".tmp", &service("one", &format!("10.0.0.{i}")));
        fs::rename(bed.path(".tmp"), bed.path("a.yaml")).unwrap();
    };
    for i in 0..=PATIENCE {
        replace(&bed, i);
        bed.look();
    }
    assert_eq!(addresses(&bed.look()), [format!("10.0.0.{PATIENCE}")]);
}

#[test]
fn a_file_that_is_written_all_the_time_is_reported() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    let mut content = service("one", "10.0.0.2");
    for _ in 0..PATIENCE {
        content += "# more\n";
        bed.write("a.yaml", &content);
        bed.look();
    }
    let view = bed.files.view();
    assert!(
        view.faults[0].contains("being written all the time"),
        "{view:?}"
    );
    assert_eq!(addresses(&view), ["10.0.0.1"]);
    let view = bed.look();
    assert_eq!(
        (addresses(&view), view.faults.len()),
        (vec!["10.0.0.2".to_owned()], 0)
    );
}

/// The way the kubelet mounts a `ConfigMap`: the files are links through `..data`, which is swapped.
#[test]
fn a_config_map_swap() {
    let mut bed = Bed::new();
    let version = |bed: &Bed, directory: &str, files: &[(&str, String)]| {
        fs::create_dir(bed.path(directory)).unwrap();
        for (name, content) in files {
            bed.write(&format!("{directory}/{name}"), content);
        }
        symlink(directory, bed.path("..data_tmp")).unwrap();
        fs::rename(bed.path("..data_tmp"), bed.path("..data")).unwrap();
    };
    let first = [
        ("a.yaml", service("one", "10.0.0.1")),
        ("b.yaml", service("two", "10.0.0.2")),
    ];
    version(&bed, "..2026_01", &first);
    for (name, _) in &first {
        symlink(format!("..data/{name}"), bed.path(name)).unwrap();
    }
    assert_eq!(addresses(&bed.settle()), ["10.0.0.1", "10.0.0.2"]);

    version(
        &bed,
        "..2026_02",
        &[("a.yaml", service("one", "10.0.0.10"))],
    );
    fs::remove_dir_all(bed.path("..2026_01")).unwrap();
    // The link of the file that is gone is removed last: until then it points nowhere.
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.10", "10.0.0.2"]);
    assert!(
        view.faults[0].starts_with("b.yaml: cannot be read"),
        "{view:?}"
    );
    bed.remove("b.yaml");
    let view = bed.settle();
    assert_eq!(
        (addresses(&view), view.faults.len()),
        (vec!["10.0.0.10".to_owned()], 0)
    );
}

#[test]
fn of_two_files_with_one_service_the_first_counts() {
    let mut bed = Bed::new();
    bed.write(
        "b.yaml",
        &(service("one", "10.0.0.2") + &service("two", "10.0.0.3")),
    );
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.1", "10.0.0.3"]);
    assert_eq!(
        view.faults,
        ["b.yaml: one also in a.yaml, which counts; remove one of them"]
    );

    bed.remove("a.yaml");
    let view = bed.settle();
    assert_eq!(addresses(&view), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(view.faults, [""; 0]);
}

#[test]
fn many_duplicates_are_one_line() {
    let mut bed = Bed::new();
    let many: String = (0..10)
        .map(|i| service(&format!("s{i}"), "10.0.0.1"))
        .collect();
    bed.write("a.yaml", &many);
    bed.write("b.yaml", &many);
    let view = bed.settle();
    let line = "b.yaml: s0, s1, s2 and 7 more also in a.yaml, which counts; remove one of them";
    assert_eq!(view.faults, [line]);
    assert_eq!(view.services.len(), 10);
}

/// While the new file is not read yet, the old one is not taken as removed.
#[test]
fn a_service_that_moves_to_another_file_is_there_all_the_time() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    bed.remove("a.yaml");
    assert_eq!(names(&bed.look()), ["one"]);
    bed.write("b.yaml", &service("one", "10.0.0.2"));
    assert_eq!(names(&bed.look()), ["one"]);
    assert_eq!(addresses(&bed.look()), ["10.0.0.2"]);
}

#[test]
fn a_file_that_may_not_be_read_keeps_its_services() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    fs::set_permissions(bed.path("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(bed.path("a.yaml")).is_ok() {
        // Root may read anything; a link to nowhere is unreadable for it as well.
        bed.remove("a.yaml");
        symlink("nowhere", bed.path("a.yaml")).unwrap();
    }
    let view = bed.settle();
    assert_eq!(names(&view), ["one"]);
    assert!(
        view.faults[0].starts_with("a.yaml: cannot be read"),
        "{view:?}"
    );
}

#[test]
fn a_missing_path_is_an_error_and_forgets_nothing() {
    let mut bed = Bed::new();
    let inner = bed.path("inner");
    fs::create_dir(&inner).unwrap();
    bed.files = Files::new("file".into(), inner.clone());
    bed.write("inner/a.yaml", &service("one", "10.0.0.1"));
    bed.settle();
    let away = bed.path("away");
    fs::rename(&inner, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(
            bed.files.poll(false).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
    assert_eq!(names(&bed.files.view()), ["one"]);
    fs::rename(&away, &inner).unwrap();
    assert_eq!(names(&bed.look()), ["one"]);
}

#[test]
fn one_file_as_the_path() {
    let mut bed = Bed::new();
    // Its name does not matter: it was asked for.
    bed.write("services.txt", &service("one", "10.0.0.1"));
    bed.files = Files::new("file".into(), bed.path("services.txt"));
    assert_eq!(names(&bed.settle()), ["one"]);
    bed.remove("services.txt");
    assert!(bed.files.poll(false).is_err());
    assert_eq!(names(&bed.files.view()), ["one"]);
}

/// What may happen to a file between two looks.
#[derive(Clone, Debug)]
enum Step {
    Write { file: u8, services: Vec<u8> },
    Damage { file: u8, cut: usize },
    Remove { file: u8 },
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3u8, proptest::collection::vec(0..4u8, 1..3))
            .prop_map(|(file, services)| Step::Write { file, services }),
        (0..3u8, 0..40usize).prop_map(|(file, cut)| Step::Damage { file, cut }),
        (0..3u8).prop_map(|file| Step::Remove { file }),
        Just(Step::Look),
        Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened before: once the files are good and left alone, what is known is what a
    /// process that starts now would know.
    #[test]
    fn converges(steps in steps()) {
        let mut bed = Bed::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { file, services } => {
                    let content: String = services
                        .iter()
                        .map(|s| service(&format!("s{s}"), &format!("10.0.{number}.{s}")))
                        .collect();
                    bed.write(&format!("f{file}.yaml"), &content);
                }
                Step::Damage { file, cut } => {
                    if let Ok(content) = fs::read_to_string(bed.path(&format!("f{file}.yaml"))) {
                        bed.write(&format!("f{file}.yaml"), &content[..cut.min(content.len())]);
                    }
                }
                Step::Remove { file } => {
                    if bed.path(&format!("f{file}.yaml")).exists() {
                        bed.remove(&format!("f{file}.yaml"));
                    }
                }
                Step::Look => {
                    bed.look();
                }
            }
        }
        // Mend all of them: a longer file than before has another stamp in any case.
        for file in 0..3u8 {
            let pad = "#".repeat(500 + usize::from(file));
            bed.write(&format!("f{file}.yaml"), &(service(&format!("s{file}"), "10.1.1.1") + &pad));
        }
        let known = bed.settle();
        bed.files = Files::new("file".into(), bed.directory.path().to_owned());
        let fresh = bed.settle();
        prop_assert_eq!(&known.services, &fresh.services);
        prop_assert_eq!(known.faults, fresh.faults);
        prop_assert_eq!(known.services.len(), 3);
    }
}
