//! Where in a YAML text its documents and fields are.
//!
//! Values are read by type, which keeps no positions, and most faults are found later still. So
//! the text is scanned once more for the position of every key and value.

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::fault::{FieldPath, Place, Segment};

/// A document of a text: its part of the text, and the nodes in it.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Byte range of the text.
    pub(super) range: std::ops::Range<usize>,
    /// Lines of the text before the range.
    pub(super) lines_before: u32,
    pub(super) index: Index,
}

/// The nodes of a document, parents before children.
#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Its parent and the step from there; the root has none.
    step: Option<(usize, Segment)>,
    key: Option<Place>,
    value: Place,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Nothing, `null` or `~`.
    Null,
    Scalar,
    Collection,
}

impl Node {
    /// Where a reader looks for it: a value on its own line, or else the key above it.
    fn place(&self) -> Place {
        match (self.shape, self.key) {
            (Shape::Collection | Shape::Null, Some(key)) => key,
            _ => self.value,
        }
    }
}

impl Index {
    /// Whether the document has no content.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes
            .first()
            .is_none_or(|root| root.shape == Shape::Null)
    }

    /// Where the field is, or the nearest field above it that is there.
    pub(super) fn place(&self, path: &FieldPath) -> Option<Place> {
        let mut node = 0;
        for segment in path.segments() {
            // Of two keys that are the same, the first one counts.
            let child = self.nodes.iter().position(|n| {
                n.step
                    .as_ref()
                    .is_some_and(|(parent, step)| *parent == node && step == segment)
            });
            match child {
                Some(child) => node = child,
                None => break,
            }
        }
        self.nodes.get(node).map(Node::place)
    }

    /// The field whose key or value starts there; the innermost one, if several do.
    pub(super) fn path_at(&self, place: Place) -> Option<FieldPath> {
        self.node_at(place).map(|node| self.path(node))
    }

    /// The mapping that starts there or that has its key there.
    pub(super) fn mapping_at(&self, place: Place) -> Option<FieldPath> {
        let node = self.node_at(place)?;
        let found = self.nodes.get(node)?;
        let parent = found.step.as_ref().map(|(parent, _)| *parent);
        Some(self.path(parent.filter(|_| found.key == Some(place)).unwrap_or(node)))
    }

    fn node_at(&self, place: Place) -> Option<usize> {
        self.nodes
            .iter()
            .rposition(|n| n.key == Some(place) || n.value == place)
    }

    fn path(&self, node: usize) -> FieldPath {
        let mut steps = Vec::new();
        let mut at = node;
        while let Some((parent, segment)) = self.nodes.get(at).and_then(|n| n.step.clone()) {
            steps.push(segment);
            at = parent;
        }
        steps.reverse();
        FieldPath::from(steps)
    }
}

/// Finds the documents of a text. A syntax error ends the scan: the documents before it are good.
pub(super) fn scan(text: &str) -> (Vec<Scanned>, Option<ScanError>) {
    let mut documents = Vec::new();
    let mut current = Builder::default();
    let (mut start, mut lines_before) = (0, 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => return (documents, Some(error)),
        };
        if matches!(event, Event::DocumentEnd) {
            let end = span.end.byte_offset().unwrap_or(text.len());
            documents.push(Scanned {
                range: start..end,
                lines_before,
                index: std::mem::take(&mut current).index,
            });
            (start, lines_before) = (end, line(&span.end).saturating_sub(1));
        } else {
            current.event(&event, &span);
        }
    }
    (documents, None)
}

#[derive(Default)]
struct Builder {
    index: Index,
    open: Vec<Open>,
}

/// A collection that is not closed yet.
struct Open {
    node: usize,
    next: Next,
    /// It is itself a key: what is in it has no path.
    is_key: bool,
}

enum Next {
    Item(usize),
    Key,
    Value(String, Place),
}

impl Builder {
    fn event(&mut self, event: &Event<'_>, span: &Span) {
        match event {
            Event::Scalar(text, style, ..) => {
                let null =
                    matches!(style, ScalarStyle::Plain) && matches!(&**text, "" | "~" | "null");
                self.scalar(text, span, if null { Shape::Null } else { Shape::Scalar });
            }
            // What an alias stands for is not followed.
            Event::Alias(_) => self.scalar("", span, Shape::Scalar),
            Event::SequenceStart(..) => self.open(span, Next::Item(0)),
            Event::MappingStart(..) => self.open(span, Next::Key),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => {}
        }
    }

    fn scalar(&mut self, text: &str, span: &Span, shape: Shape) {
        let place = place(&span.start);
        match self.open.last_mut() {
            Some(Open {
                next: next @ Next::Key,
                ..
            }) => {
                *next = Next::Value(text.to_owned(), place);
            }
            _ => drop(self.node(place, shape)),
        }
    }

    fn open(&mut self, span: &Span, next: Next) {
        let is_key = matches!(
            self.open.last(),
            Some(Open {
                next: Next::Key,
                ..
            })
        );
        let node = self.node(place(&span.start), Shape::Collection);
        self.open.push(Open { node, next, is_key });
    }

    fn close(&mut self) {
        let Some(closed) = self.open.pop() else {
            return;
        };
        if closed.is_key
            && let (Some(parent), Some(node)) =
                (self.open.last_mut(), self.index.nodes.get(closed.node))
        {
            parent.next = Next::Value("?".to_owned(), node.value);
        }
    }

    /// Adds a node as the next child of the collection that is open.
    fn node(&mut self, value: Place, shape: Shape) -> usize {
        let (step, key) = match self.open.last_mut() {
            None => (None, None),
            Some(open) => match &mut open.next {
                Next::Item(n) => {
                    let step = Segment::Index(*n);
                    *n += 1;
                    (Some((open.node, step)), None)
                }
                Next::Key => (Some((open.node, Segment::Key("?".to_owned()))), None),
                next @ Next::Value(..) => match std::mem::replace(next, Next::Key) {
                    Next::Value(name, place) => {
                        (Some((open.node, Segment::Key(name))), Some(place))
                    }
                    Next::Item(_) | Next::Key => (None, None),
                },
            },
        };
        self.index.nodes.push(Node {
            step,
            key,
            value,
            shape,
        });
        self.index.nodes.len() - 1
    }
}

fn line(marker: &Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX)
}

/// The place of a marker, whose columns start at 0.
pub(super) fn place(marker: &Marker) -> Place {
    let column = u32::try_from(marker.col()).unwrap_or(u32::MAX);
    Place {
        line: line(marker),
        column: column.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places of a field in each document.
    fn places(text: &str, field: &[&str]) -> Vec<Option<(u32, u32)>> {
        let (documents, error) = scan(text);
        assert_eq!(error.map(|e| e.info()), None, "{text:?}");
        let path = field.iter().fold(FieldPath::default(), |path, name| {
            name.parse()
                .map_or_else(|_| path.key(name), |index| path.index(index))
        });
        let place = |d: &Scanned| d.index.place(&path).map(|p| (p.line, p.column));
        documents.iter().map(place).collect()
    }

    #[test]
    fn places_of_fields() {
        for (text, field, expected) in [
            ("a:\n  b: 1\n", &["a", "b"][..], vec![Some((2, 6))]),
            // A collection is where its key is, and so is what is missing in it.
            ("a:\n  b: 1\n", &["a"], vec![Some((1, 1))]),
            ("a:\n  b: 1\n", &["a", "c"], vec![Some((1, 1))]),
            ("a:\n- x\n- y: 1\n", &["a", "1", "y"], vec![Some((3, 6))]),
            ("a: [x, {b: 1}]\n", &["a", "1", "b"], vec![Some((1, 12))]),
            // Several documents, however they are parted.
            (
                "a: 1\n---\na: 2\n",
                &["a"],
                vec![Some((1, 4)), Some((3, 4))],
            ),
            (
                "---\na: 1\n...\n# x\n---\n\na: 2\n",
                &["a"],
                vec![Some((2, 4)), Some((7, 4))],
            ),
            ("%YAML 1.2\n---\na: 1\n", &["a"], vec![Some((3, 4))]),
            (
                "a: 1\r\n---\r\na: 2\r\n",
                &["a"],
                vec![Some((1, 4)), Some((3, 4))],
            ),
            // Columns are characters, not bytes.
            ("é: {ü: x, b: 1}\n", &["é", "b"], vec![Some((1, 14))]),
            // Keys that are no texts do not put the rest out of step.
            ("? [x, {y: z}]\n: 1\na: 2\n", &["a"], vec![Some((3, 4))]),
            (
                "? {x: 1}\n: {y: 2}\n? &k b\n: 3\n*k : 4\na: 5\n",
                &["a"],
                vec![Some((6, 4))],
            ),
            // What is merged in is where the merge is.
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n",
                &["c", "b"],
                vec![Some((2, 1))],
            ),
            ("", &["a"], vec![]),
        ] {
            assert_eq!(places(text, field), expected, "{text:?}");
        }
    }

    #[test]
    fn ranges_of_documents() {
        let text = "a: 1\n---\nb: 2\n...\n%YAML 1.2\n---\nc: 3\n";
        let (documents, _) = scan(text);
        let texts: Vec<_> = documents
            .iter()
            .map(|d| (&text[d.range.clone()], d.lines_before))
            .collect();
        assert_eq!(
            texts,
            [
                ("a: 1\n", 0),
                ("---\nb: 2\n...", 1),
                ("\n%YAML 1.2\n---\nc: 3\n", 3)
            ]
        );
    }

    #[test]
    fn documents_before_a_syntax_error_are_good() {
        let (documents, error) = scan("a: 1\n---\nb: [\n");
        assert_eq!(documents.len(), 1);
        assert_eq!(error.map(|e| e.marker().line()), Some(3));
    }
}
