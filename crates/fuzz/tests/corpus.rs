//! Every file of the corpus through the check that it is for, so that `cargo test` keeps them alive
//! without libFuzzer; and what the planner makes of the corpus before the program that has the last
//! word.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests count as code outside of tests"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use diolkos_fuzz::CHECKS;
use proptest::{collection::vec, prelude::*};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target, by their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz().join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .expect("the target has a corpus")
        .map(|entry| entry.expect("a file").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a file")))
        .collect();
    files.sort();
    files
}

#[test]
fn every_check_has_a_target_and_a_corpus() {
    let checks: BTreeSet<_> = CHECKS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        fs::read_dir(fuzz().join(folder))
            .expect("a folder")
            .map(|entry| entry.expect("a file").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    };
    assert_eq!(names("fuzz_targets"), checks);
    assert_eq!(names("corpus"), checks);
}

#[test]
fn the_corpus_passes() {
    let mut failed = Vec::new();
    for (target, check) in CHECKS {
        let corpus = corpus(target);
        assert!(!corpus.is_empty(), "{target} has no corpus");
        for (file, bytes) in corpus {
            if catch_unwind(|| check(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "these inputs fail: {failed:#?}");
}

/// Inputs that are not in the corpus: cut and crossed ones of it, the same in each run.
#[test]
fn mixtures_of_the_corpus_pass() {
    for (target, check) in CHECKS {
        let corpus = corpus(target);
        for (index, (_, one)) in corpus.iter().enumerate() {
            let (_, two) = &corpus[(index + 1) % corpus.len()];
            for share in 1..8 {
                let (head, tail) = (one.len() * share / 8, two.len() * share / 8);
                check(&one[..head]);
                check(&[&one[..head], &two[tail..]].concat());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_service_passes(bytes in vec(any::<u8>(), 0..1_500)) {
        diolkos_fuzz::mapping(&bytes);
        diolkos_fuzz::document(&bytes);
    }
}

#[test]
fn istioctl_accepts_what_is_planned() {
    let objects: Vec<_> = corpus("mapping")
        .iter()
        .flat_map(|(_, bytes)| diolkos_fuzz::planned(bytes))
        .collect();
    assert!(
        objects.len() > 50,
        "the corpus makes {} objects",
        objects.len()
    );
    let mut input = String::new();
    for object in &objects {
        input.push_str("---\n");
        for char in object.manifest().to_string().chars() {
            match char {
                // YAML does not take them raw.
                '\u{7f}'..='\u{9f}' => input.push_str(&format!("\\u{:04x}", u32::from(char))),
                _ => input.push(char),
            }
        }
        input.push('\n');
    }
    let said = istioctl_validate(&input);
    assert!(said.is_empty(), "istioctl refuses: {said}");
}

/// What istioctl has against these documents.
fn istioctl_validate(documents: &str) -> String {
    let testbed = env::var_os("DIOLKOS_TESTBED").map_or_else(
        || Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache/diolkos-testbed"),
        PathBuf::from,
    );
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(documents.as_bytes()).expect("room for it");
    let output = Command::new(testbed.join("bin/istioctl"))
        .args(["validate", "-f"])
        .arg(file.path())
        .stdin(Stdio::null())
        .output()
        .expect("istioctl starts: run `testbed/setup`");
    if output.status.success() {
        return String::new();
    }
    String::from_utf8_lossy(&output.stderr).into_owned()
}
