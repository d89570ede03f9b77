//! Credentials from files.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A file is not read again sooner than this. Kubernetes takes up to a minute to renew a mounted
/// Secret, so nothing is won by looking more often.
const FRESH: Duration = Duration::from_secs(1);

/// A credential in a file, read again when the file changes. Never printed.
pub struct TokenFile {
    path: PathBuf,
    /// What was read last, and when.
    read: Mutex<Option<(Instant, String)>>,
}

/// A credential cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the credential file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds nothing, or something that is no line of text.
    #[error("the credential file {} {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl TokenFile {
    /// A credential that is in the file `path`. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: Mutex::new(None),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The credential as the file has it now (not older than a second), without white space around it.
    ///
    /// # Errors
    /// Names the file. A file that vanished or is empty is an error, not "no credential": a
    /// registry that is asked without one may answer with less than there is.
    pub fn read(&self) -> Result<String, TokenError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, token)) = &*read
            && at.elapsed() < FRESH
        {
            return Ok(token.clone());
        }
        let token = self.load()?;
        *read = Some((Instant::now(), token.clone()));
        Ok(token)
    }

    fn load(&self) -> Result<String, TokenError> {
        let text = std::fs::read_to_string(&self.path).map_err(|source| TokenError::Read {
            path: self.path.clone(),
            source,
        })?;
        let problem = match text.trim() {
            "" => "is empty",
            token if token.chars().any(char::is_control) => "holds more than one line",
            token => return Ok(token.to_owned()),
        };
        Err(TokenError::Content {
            path: self.path.clone(),
            problem,
        })
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_file_and_hides_the_credential() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = TokenFile::new(&path);
        let missing = file.read().unwrap_err().to_string();
        assert!(missing.contains(path.to_str().unwrap()), "{missing}");

        std::fs::write(&path, "  first\n").unwrap();
        assert_eq!(file.read().unwrap(), "first");
        std::fs::write(&path, "second").unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!(file.read().unwrap(), "second");
        assert!(!format!("{file:?}").contains("second"));

        for (rubbish, problem) in [("\n", "is empty"), ("a\nb", "more than one line")] {
            std::fs::write(&path, rubbish).unwrap();
            tokio::time::advance(FRESH).await;
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
