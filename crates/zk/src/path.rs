//! Paths: what ZooKeeper takes for one, and the chroot before them.

use crate::Error;

/// The longest path that is sent. A server takes requests of 1 MiB (`jute.maxbuffer`) and hangs up on longer ones, and
/// each path has to fit into a request that sets watches again.
const LONGEST: usize = 64 << 10;

/// The node below which all paths are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chroot(String);

impl Chroot {
    /// # Errors
    /// [`Error::Config`] if it is no path.
    pub(crate) fn new(chroot: &str) -> Result<Self, Error> {
        let root = chroot.is_empty() || chroot == "/";
        if !root && let Err(problem) = check(chroot) {
            return Err(Error::Config(format!("chroot {chroot}: {problem}")));
        }
        Ok(Self(if root { "" } else { chroot }.to_owned()))
    }

    /// The server's path of ours.
    ///
    /// # Errors
    /// [`Error::InvalidPath`]
    pub(crate) fn full(&self, path: &str) -> Result<String, Error> {
        let full = match path {
            "/" if !self.0.is_empty() => self.0.clone(),
            _ => format!("{}{path}", self.0),
        };
        // Also what is given: `/../x` below a chroot, and an empty path, which would be the chroot.
        let problem = check(path).and_then(|()| check(&full)).err();
        match problem {
            None => Ok(full),
            Some(problem) => Err(Error::InvalidPath {
                path: path.chars().take(200).collect(),
                problem,
            }),
        }
    }

    /// Our path of the server's, if it is below the chroot.
    pub(crate) fn strip<'a>(&self, full: &'a str) -> Option<&'a str> {
        match full.strip_prefix(self.0.as_str())? {
            "" => Some("/"),
            path => path.starts_with('/').then_some(path),
        }
    }
}

/// The rules of the server (its `PathUtils.validatePath`), and a limit to the length.
fn check(path: &str) -> Result<(), &'static str> {
    let Some(names) = path.strip_prefix('/') else {
        return Err("it does not begin with /");
    };
    if path.len() > LONGEST {
        return Err("it is too long");
    }
    if path.contains(forbidden) {
        return Err("it has characters that ZooKeeper does not allow");
    }
    if names.is_empty() {
        return Ok(());
    }
    for name in names.split('/') {
        match name {
            "" => return Err("it has an empty name"),
            "." | ".." => return Err("it is relative"),
            _ => {}
        }
    }
    Ok(())
}

fn forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
        // As UTF-16, which the server checks, these begin with a surrogate.
        || c > '\u{ffff}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chroot_is_put_before_and_stripped() {
        let chroot = Chroot::new("/a/b").unwrap();
        assert_eq!(chroot.full("/").unwrap(), "/a/b");
        assert_eq!(chroot.full("/c").unwrap(), "/a/b/c");
        assert_eq!(chroot.strip("/a/b"), Some("/"));
        assert_eq!(chroot.strip("/a/b/c"), Some("/c"));
        assert_eq!(chroot.strip("/a/bc"), None);
        assert_eq!(chroot.strip("/a"), None);
        for root in ["", "/"] {
            let chroot = Chroot::new(root).unwrap();
            assert_eq!(chroot.full("/").unwrap(), "/");
            assert_eq!(chroot.full("/c").unwrap(), "/c");
            assert_eq!(chroot.strip("/c"), Some("/c"));
            assert_eq!(chroot.strip("/"), Some("/"));
        }
        assert!(matches!(Chroot::new("/a/"), Err(Error::Config(_))));
    }

    #[test]
    fn paths_that_no_server_takes() {
        let long = format!("/{}", "a".repeat(LONGEST));
        for path in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/a/./b",
            "/..",
            "/a\n",
            "/\u{0}",
            "/\u{85}",
            "/\u{e001}",
            "/\u{fff1}",
            "/😀",
            &long,
        ] {
            for chroot in ["", "/x"] {
                let error = Chroot::new(chroot).unwrap().full(path).unwrap_err();
                assert!(matches!(error, Error::InvalidPath { .. }), "{path:?}");
            }
        }
        assert_eq!(check("/a/b.c/…/ü:%2F"), Ok(()));
    }
}
