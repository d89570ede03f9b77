//! Documents from files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    check::check,
    document::{API_VERSION, Header, KINDS, Metadata, REGISTRY, RegistryDocument},
    fault::{Fault, FieldPath, Place, Problem, nearest},
    settings::CheckedRegistry,
    yaml::{self, Document},
};

/// What was found in files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The documents that are free of faults, by name.
    pub registries: Vec<CheckedRegistry>,
    /// All that is wrong with the others, in the order of the files.
    pub faults: Vec<Fault>,
}

/// Reads and checks the documents of all `paths`: files, and of directories the files `*.yaml`,
/// `*.yml` and `*.json` in them (not in their subdirectories, as kubectl). A file may hold several
/// documents. A document with a fault does not keep the others from being read.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loader = Loader::default();
    for path in paths {
        match files(path) {
            Ok(files) if files.is_empty() => loader.file_fault(path, Problem::NoDocument),
            Ok(files) => files.iter().for_each(|file| loader.file(file)),
            Err(error) => loader.file_fault(path, Problem::Unreadable(error.to_string())),
        }
    }
    loader.finish()
}

/// As [`load`], of one file with that content.
#[doc(hidden)]
#[must_use]
pub fn load_bytes(file: &Path, bytes: Vec<u8>) -> Loaded {
    let mut loader = Loader::default();
    loader.bytes(file, bytes);
    loader.finish()
}

/// The files that a path stands for, sorted.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = file
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        // Through links: a mounted ConfigMap is a directory of links.
        if known && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Default)]
struct Loader {
    registries: BTreeMap<String, Found>,
    faults: Vec<Fault>,
}

/// The first document of a name.
struct Found {
    /// `file:line`
    place: String,
    /// `None` if it has faults.
    checked: Option<CheckedRegistry>,
}

impl Loader {
    fn finish(self) -> Loaded {
        let registries = self
            .registries
            .into_values()
            .filter_map(|found| found.checked)
            .collect();
        Loaded {
            registries,
            faults: self.faults,
        }
    }

    fn file_fault(&mut self, file: &Path, problem: Problem) {
        self.faults.push(Fault {
            file: Some(file.to_owned()),
            place: None,
            path: FieldPath::default(),
            problem,
        });
    }

    fn file(&mut self, file: &Path) {
        match fs::read(file) {
            Ok(bytes) => self.bytes(file, bytes),
            Err(error) => self.file_fault(file, Problem::Unreadable(error.to_string())),
        }
    }

    fn bytes(&mut self, file: &Path, bytes: Vec<u8>) {
        let Ok(text) = String::from_utf8(bytes) else {
            return self.file_fault(file, Problem::Syntax("not UTF-8".to_owned()));
        };
        let (documents, syntax) = yaml::documents(&text);
        if documents.is_empty() && syntax.is_none() {
            return self.file_fault(file, Problem::NoDocument);
        }
        for document in &documents {
            self.document(file, document);
        }
        self.faults.extend(syntax.map(|fault| Fault {
            file: Some(file.to_owned()),
            ..fault
        }));
    }

    fn document(&mut self, file: &Path, document: &Document<'_>) {
        let read = kind(document).and_then(|kind| match kind {
            Kind::Registry => document
                .read::<RegistryDocument>()
                .map_err(|fault| vec![*fault]),
        });
        let faults = match read {
            Ok(registry) => self.registry(file, document, &registry),
            Err(faults) => faults,
        };
        let located = faults.into_iter().map(|fault| Fault {
            file: Some(file.to_owned()),
            place: fault.place.or_else(|| document.place(&fault.path)),
            ..fault
        });
        let start = self.faults.len();
        self.faults.extend(located);
        self.faults[start..].sort_by_key(|fault| fault.place);
    }

    /// Returns what is wrong with it.
    fn registry(
        &mut self,
        file: &Path,
        document: &Document<'_>,
        registry: &RegistryDocument,
    ) -> Vec<Fault> {
        let Metadata {
            name, namespace, ..
        } = &registry.metadata;
        let mut faults = Vec::new();
        let metadata = FieldPath::default().key("metadata");
        if namespace.is_some() {
            faults.push(fault(
                &metadata.key("namespace"),
                Problem::Namespaced(REGISTRY),
            ));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let checked = check(name, &registry.spec, Some(folder));
        let checked = checked.map_err(|found| faults.extend(found)).ok();
        let name_at = metadata.key("name");
        if let Some(first) = self.registries.get(name) {
            let problem = Problem::DuplicateDocument {
                kind: REGISTRY,
                name: name.clone(),
                first: first.place.clone(),
            };
            faults.push(fault(&name_at, problem));
            return faults;
        }
        let line = document
            .place(&name_at)
            .map_or(1, |place: Place| place.line);
        let place = format!("{}:{line}", file.display());
        let checked = checked.filter(|_| faults.is_empty());
        self.registries
            .insert(name.clone(), Found { place, checked });
        faults
    }
}

fn fault(path: &FieldPath, problem: Problem) -> Fault {
    Fault {
        file: None,
        place: None,
        path: path.clone(),
        problem,
    }
}

/// The kinds of documents. A new one is one variant.
enum Kind {
    Registry,
}

/// What a document is.
fn kind(document: &Document<'_>) -> Result<Kind, Vec<Fault>> {
    let header: Header = document.read().map_err(|fault| vec![*fault])?;
    let root = FieldPath::default();
    if header.api_version.as_deref() != Some(API_VERSION) {
        let known = vec![API_VERSION.to_owned()];
        let nearest = header
            .api_version
            .as_deref()
            .and_then(|found| nearest(found, &known));
        let problem = Problem::ApiVersion {
            found: header.api_version,
            known,
            nearest,
        };
        return Err(vec![fault(&root.key("apiVersion"), problem)]);
    }
    match header.kind.as_deref() {
        Some(REGISTRY) => Ok(Kind::Registry),
        found => {
            let known: Vec<_> = KINDS.map(str::to_owned).into();
            let nearest = found.and_then(|found| nearest(found, &known));
            let problem = Problem::Kind {
                found: header.kind,
                known,
                nearest,
            };
            Err(vec![fault(&root.key("kind"), problem)])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = include_str!("../tests/full.yaml");

    /// Nothing is passed over in silence, and every fault within a file has a place in it.
    fn sane(text: &[u8]) {
        let loaded = load_bytes(Path::new("x.yaml"), text.to_vec());
        assert!(!loaded.registries.is_empty() || !loaded.faults.is_empty());
        let lines = u32::try_from(text.iter().filter(|b| **b == b'\n').count()).unwrap() + 1;
        for fault in &loaded.faults {
            assert!(
                fault.place.is_none_or(|place| place.line <= lines + 1),
                "{fault}"
            );
            assert!(fault.path.is_root() || fault.place.is_some(), "{fault}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        for text in ["[", "{a: ", "- ", "? "] {
            sane(text.repeat(20_000).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            sane(&bytes);
        }

        #[test]
        fn yaml_like_text_never_panics(text in "([ \n:{}\\[\\],&*!|>'\"%#?-]|---\n|\\.\\.\\.\n|kind|spec|<<|é|\t){0,60}") {
            sane(text.as_bytes());
        }

        #[test]
        fn a_changed_document_never_panics(at in 0..VALID.len(), remove in 0..40usize, insert in "[ \n:{}\\[\\]a-z0-9*&%-]{0,5}") {
            let mut bytes = VALID.as_bytes().to_vec();
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert.into_bytes());
            sane(&bytes);
        }
    }
}
