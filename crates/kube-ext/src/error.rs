//! Deadlines, and errors that people can read.

use std::{error::Error as _, future::Future, time::Duration};

/// How long a call may take where nothing else is said.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// A call to the API failed.
#[derive(thiserror::Error, Debug)]
pub enum CallError {
    /// There was no answer in time. What was asked for may have been done or not.
    #[error("no answer from the API server within {} s", .0.as_secs_f64())]
    Deadline(Duration),
    /// The answer is an error, or there was no connection.
    #[error("{}", reason(.0))]
    Kube(#[from] kube::Error),
}

/// Ends `call` after `limit`. Its connection is closed then, so a later call does not wait behind it.
///
/// # Errors
/// The error of the call, or that there was no answer in time.
pub async fn deadline<T>(
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Deadline(limit)),
    }
}

/// An error of kube in one line: what the API server said, or the chain of causes. kube's own text of an answer
/// ends with its debug form.
#[must_use]
pub fn reason(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("HTTP {} {}", status.code, status.reason),
        other => chain(other),
    };
    one_line(&text)
}

/// The causes, outermost first. Many errors repeat their cause in their own text: that is left out.
fn chain(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn an_answer_is_shown_in_the_servers_words_on_one_line() {
        let status = Status::failure("spec.hosts: Required value\n  and more", "Invalid");
        let error = kube::Error::Api(status.with_code(422).boxed());
        assert_eq!(reason(&error), "spec.hosts: Required value and more");
        let error = kube::Error::Api(
            Status::failure("", "ServiceUnavailable")
                .with_code(503)
                .boxed(),
        );
        assert_eq!(reason(&error), "HTTP 503 ServiceUnavailable");
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends() {
        let limit = Duration::from_millis(20);
        let error = deadline::<()>(limit, std::future::pending())
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no answer from the API server within 0.02 s"
        );
    }
}
