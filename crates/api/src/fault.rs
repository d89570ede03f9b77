//! What is wrong with a document, and where.

use std::{fmt, path::PathBuf};

use diolkos_istio::validate::Violation;
use diolkos_plan::TemplateError;

/// Something in a document that has to be changed before it can be used.
///
/// Prints as a compiler does: `registry.yaml:12:9: spec.export.host: unknown variable 'servce'; …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The file, if the document came from one.
    pub file: Option<PathBuf>,
    /// Where in the file; `None` if the file as a whole is meant.
    pub place: Option<Place>,
    /// The field; empty if the document as a whole is meant.
    pub path: FieldPath,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(Place { line, column }) = self.place {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

/// A position in a file. Both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// The way from the top of a document to a field: `spec.export.aliases[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Segment>);

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

impl FieldPath {
    /// The field of that name in the mapping at this path.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        self.with(Segment::Key(name.to_owned()))
    }

    /// The item of the list at this path; the first one is 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    /// Whether it is the document itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its steps, from the top.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    fn with(&self, segment: Segment) -> Self {
        Self(self.0.iter().cloned().chain([segment]).collect())
    }
}

impl From<Vec<Segment>> for FieldPath {
    fn from(segments: Vec<Segment>) -> Self {
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if !key.is_empty() && key.chars().all(is_plain) => {
                    write!(f, "{}{key}", if n == 0 { "" } else { "." })?;
                }
                Segment::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It is not YAML.
    #[error("no valid YAML: {0}")]
    Syntax(String),
    /// Nothing was found where documents were expected.
    #[error("no document found; of a directory, *.yaml, *.yml and *.json are read")]
    NoDocument,
    /// Another API, or none.
    #[error("{}", found_instead("apiVersion", found.as_deref(), known, nearest.as_deref()))]
    ApiVersion {
        /// What is there.
        found: Option<String>,
        /// What it can be.
        known: Vec<String>,
        /// What it may have been meant to be.
        nearest: Option<String>,
    },
    /// Another kind, or none.
    #[error("{}", found_instead("kind", found.as_deref(), known, nearest.as_deref()))]
    Kind {
        /// What is there.
        found: Option<String>,
        /// What it can be.
        known: Vec<String>,
        /// What it may have been meant to be.
        nearest: Option<String>,
    },
    /// There is a document of the same kind and name already.
    #[error("there is a {kind} '{name}' already, at {first}")]
    DuplicateDocument {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where the first one is: `file:line`.
        first: String,
    },
    /// A cluster-scoped document with a namespace.
    #[error("a {0} belongs to no namespace; remove it")]
    Namespaced(&'static str),
    /// The same key twice in a mapping.
    #[error("key '{0}' is there already")]
    DuplicateKey(String),
    /// No such field.
    #[error("unknown field '{field}'; {}", suggestion(known, nearest.as_deref()))]
    UnknownField {
        /// What is there.
        field: String,
        /// What it can be.
        known: Vec<String>,
        /// What it may have been meant to be.
        nearest: Option<String>,
    },
    /// A field that has to be there is not.
    #[error("the field is missing")]
    MissingField,
    /// A value of another type.
    #[error("{0}")]
    Type(String),
    /// Not one of the values that there are.
    #[error("unknown value '{value}'; {}", suggestion(known, nearest.as_deref()))]
    UnknownValue {
        /// What is there.
        value: String,
        /// What it can be.
        known: Vec<String>,
        /// What it may have been meant to be.
        nearest: Option<String>,
    },
    /// None or several of the fields of which there must be one.
    #[error("exactly one of {} is needed; given: {}", of.join(", "), given_names(given))]
    NotExactlyOne {
        /// The fields.
        of: Vec<&'static str>,
        /// Those that are there.
        given: Vec<&'static str>,
    },
    /// Fields or values that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
    /// A value that later releases may take.
    #[error("{value} does not work in this release: {reason}")]
    NotYet {
        /// What is there.
        value: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Not a template.
    #[error("{0}")]
    Template(String),
    /// A template whose fixed part cannot be part of the name that it is for.
    #[error("'{character}' cannot be part of a {what}")]
    Literal {
        /// The first character that cannot.
        character: char,
        /// What the template is for.
        what: &'static str,
    },
    /// Hosts that no registry may claim.
    #[error(
        "hosts under '{0}' are names of the cluster's own Services; no registry may claim them"
    )]
    ClusterHost(String),
    /// Not a glob.
    #[error("no valid glob: {0}")]
    Glob(String),
    /// Not a duration.
    #[error("'{0}' is no duration; write 90s, 10m or 1h30m")]
    Duration(String),
    /// Neither a share nor a number.
    #[error("'{0}' is neither a share from 0% to 100% nor a number; write 30% or 5")]
    Share(String),
    /// Not a number of bytes.
    #[error("'{0}' is no size; write 16Mi, 512Ki or a number of bytes")]
    Size(String),
    /// A value that is too small or too large.
    #[error("must be between {least} and {most}")]
    Range {
        /// The smallest that is possible.
        least: &'static str,
        /// The largest that is possible.
        most: &'static str,
    },
    /// Not the path of a node.
    #[error("'{0}' is no path of a node; write /dubbo or /shop/dubbo")]
    Node(String),
    /// Not a network.
    #[error("'{0}' is no network; write 10.0.0.0/8 or fd00::/8")]
    Network(String),
    /// Not the base URL of a server.
    #[error("no valid address: {0}")]
    Url(String),
    /// A secret in a document.
    #[error(
        "user name and password do not belong in an address; use '{0}' with a file or a Secret"
    )]
    InlineSecret(&'static str),
    /// Not a valid name.
    #[error(transparent)]
    Name(#[from] Violation),
    /// Nothing where something is needed.
    #[error("must not be empty")]
    Empty,
    /// A number out of its range.
    #[error("must be at least 1")]
    Zero,
    /// The same value twice.
    #[error("'{0}' is there twice")]
    Repeated(String),
    /// A relative path, and nothing that it could be relative to.
    #[error("'{0}' must be an absolute path: a document in a cluster has no folder")]
    RelativePath(String),
    /// More than the grant allows.
    #[error("'{value}' is outside of {grant}")]
    OutsideGrant {
        /// What is wanted.
        value: String,
        /// The field of the grant.
        grant: &'static str,
    },
}

impl From<TemplateError> for Problem {
    fn from(error: TemplateError) -> Self {
        Self::Template(error.to_string())
    }
}

/// Names every kind of problem: a `match`, so that none is forgotten, and the list of the names.
macro_rules! codes {
    ($($kind:pat => $code:literal,)*) => {
        impl Problem {
            /// All that [`code`](Self::code) can be.
            pub const CODES: &[&'static str] = &[$($code),*];

            /// A stable name of the kind of problem, for machines.
            #[must_use]
            pub fn code(&self) -> &'static str {
                match self {
                    $($kind => $code,)*
                }
            }
        }
    };
}

codes! {
    Self::Unreadable(_) => "unreadable",
    Self::Syntax(_) => "syntax",
    Self::NoDocument => "no-document",
    Self::ApiVersion { .. } => "api-version",
    Self::Kind { .. } => "kind",
    Self::DuplicateDocument { .. } => "duplicate-document",
    Self::Namespaced(_) => "namespaced",
    Self::DuplicateKey(_) => "duplicate-key",
    Self::UnknownField { .. } => "unknown-field",
    Self::MissingField => "missing-field",
    Self::Type(_) => "type",
    Self::UnknownValue { .. } => "unknown-value",
    Self::NotExactlyOne { .. } => "not-exactly-one",
    Self::Conflict(_) => "conflict",
    Self::NotYet { .. } => "not-yet",
    Self::Template(_) => "template",
    Self::Literal { .. } => "literal",
    Self::ClusterHost(_) => "cluster-host",
    Self::Glob(_) => "glob",
    Self::Duration(_) => "duration",
    Self::Share(_) => "share",
    Self::Size(_) => "size",
    Self::Range { .. } => "range",
    Self::Node(_) => "node",
    Self::Network(_) => "network",
    Self::Url(_) => "url",
    Self::InlineSecret(_) => "inline-secret",
    Self::Name(_) => "name",
    Self::Empty => "empty",
    Self::Zero => "zero",
    Self::Repeated(_) => "repeated",
    Self::RelativePath(_) => "relative-path",
    Self::OutsideGrant { .. } => "outside-grant",
}

fn found_instead(
    what: &str,
    found: Option<&str>,
    known: &[String],
    nearest: Option<&str>,
) -> String {
    match found {
        Some(found) => format!("unknown {what} '{found}'; {}", suggestion(known, nearest)),
        None => format!("the field is missing; {}", suggestion(known, None)),
    }
}

fn suggestion(known: &[String], nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean '{nearest}'?"),
        None if known.is_empty() => "there are none here".to_owned(),
        None => format!("known: {}", known.join(", ")),
    }
}

fn given_names(given: &[&str]) -> String {
    match given {
        [] => "none".to_owned(),
        _ => given.join(", "),
    }
}

/// What `wrong` may have been meant to be: the known text with the fewest mistakes, at most one in
/// three characters.
pub(crate) fn nearest(wrong: &str, known: &[String]) -> Option<String> {
    let lower = wrong.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.clone())
}

/// The faults of one document while it is checked.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, path: &FieldPath, problem: impl Into<Problem>) {
        self.0.push(Fault {
            file: None,
            place: None,
            path: path.clone(),
            problem: problem.into(),
        });
    }

    /// The value, or `None` and one more fault.
    pub(crate) fn take<T>(
        &mut self,
        path: &FieldPath,
        result: Result<T, impl Into<Problem>>,
    ) -> Option<T> {
        result.map_err(|problem| self.add(path, problem)).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}
