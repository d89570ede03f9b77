//! How servers know us: tokens and signatures.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use diolkos_net::{
    Answer, HeaderValue, HttpClient, HttpError, Method, Request, StatusCode, TokenError, TokenFile,
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use url::form_urlencoded;

use crate::{
    Auth, Error, Meter, Name,
    http::{is_missing, text, unreachable},
    json,
};

/// How long a login may take. Passwords are hashed on purpose in a way that is slow: on a busy
/// server that takes seconds, and who gives up early only asks for more of it.
const LOGIN: Duration = Duration::from_secs(15);
/// A login that was refused is not tried again sooner: many requests find out at once.
const REFUSED: Duration = Duration::from_secs(1);
/// When a new token was refused too, refusals are not because of the token: for so long no request
/// tries another one.
const NOT_THE_TOKEN: Duration = Duration::from_secs(60);

/// What a request is about. Signatures cover it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// Services, but no single one.
    Services,
    /// A service.
    Service(&'a Name),
    /// Configuration items of a group; `tenant` is the namespace as those requests write it.
    Configs { tenant: &'a str, group: &'a str },
}

/// What a request shows of us.
#[derive(Clone)]
pub(crate) enum Proof {
    /// Servers let everybody in, or are asked to.
    Nothing,
    /// What a login brought.
    Token(Token),
    /// Fields with a signature. They go into headers or the query.
    Signature(Vec<(&'static str, String)>),
}

/// A secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// For the header `Authorization`.
    pub(crate) fn bearer(&self) -> Result<HeaderValue, Error> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0))
            .map_err(|_| Error::Protocol("the token of a login is no line of text".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Credentials, for all servers.
#[derive(Debug)]
pub(crate) enum Credentials {
    None,
    Password { username: String, file: TokenFile },
    Keys { access_key: String, file: TokenFile },
}

impl Credentials {
    pub(crate) fn new(auth: Option<Auth>) -> Self {
        match auth {
            None => Self::None,
            Some(Auth::Password {
                username,
                password_file,
            }) => Self::Password {
                username,
                file: TokenFile::new(password_file),
            },
            Some(Auth::Keys {
                access_key,
                secret_key_file,
            }) => Self::Keys {
                access_key,
                file: TokenFile::new(secret_key_file),
            },
        }
    }

    /// What to do about a server that refuses us, for people.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::None => "it lets only known users in: set `auth`".into(),
            Self::Password { username, file } => {
                let path = file.path().display();
                format!("user `{username}` with the password in {path} may not do that")
            }
            Self::Keys { access_key, file } => {
                let path = file.path().display();
                format!("access key `{access_key}` with the secret key in {path}")
            }
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self::Config(error.to_string())
    }
}

/// Signs a request, now.
pub(crate) fn sign(
    access_key: &str,
    file: &TokenFile,
    subject: Subject<'_>,
) -> Result<Proof, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.unwrap_or_default().as_millis();
    Ok(sign_at(access_key, &file.read()?, subject, millis))
}

/// The rules are those of the Java client's `NamingResourceInjector` and `ConfigResourceInjector`.
fn sign_at(access_key: &str, secret: &str, subject: Subject<'_>, millis: u128) -> Proof {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let signature = |text: &str| BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()).as_ref());
    let naming = |data: String| {
        vec![
            ("ak", access_key.to_owned()),
            ("signature", signature(&data)),
            ("data", data),
        ]
    };
    Proof::Signature(match subject {
        Subject::Services => naming(millis.to_string()),
        Subject::Service(name) => naming(format!("{millis}@@{}", name.grouped())),
        Subject::Configs { tenant, group } => {
            let parts = [tenant, group, &millis.to_string()];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            vec![
                ("Spas-AccessKey", access_key.to_owned()),
                ("Spas-Signature", signature(&parts.join("+"))),
                ("Timestamp", millis.to_string()),
            ]
        }
    })
}

/// The login at one server. All its connections share it.
#[derive(Debug, Default)]
pub(crate) struct Session(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    login: Option<Login>,
    /// What a server said to the last login, while it is not worth asking again.
    refused: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Login {
    token: Token,
    /// When to get a new one.
    renew: Instant,
    end: Instant,
    /// When it was refused although it was new.
    refused_new: Option<Instant>,
}

/// Who logs in, and where.
pub(crate) struct Door<'a> {
    pub(crate) username: &'a str,
    pub(crate) file: &'a TokenFile,
    pub(crate) http: &'a HttpClient,
    pub(crate) meter: &'a dyn Meter,
}

impl Session {
    /// A token that is good for a while.
    pub(crate) async fn token(&self, door: &Door<'_>) -> Result<Token, Error> {
        // Held while logging in: one login serves all who wait.
        let mut state = self.0.lock().await;
        let now = Instant::now();
        let good = |login: &&Login| now < login.renew;
        if let Some(login) = state.login.as_ref().filter(good) {
            return Ok(login.token.clone());
        }
        match state.log_in(door).await {
            Ok(token) => Ok(token),
            Err(error) => state.old_token(error, door),
        }
    }

    /// After a server refused a token: whether another may do. If so, the next token is another.
    pub(crate) async fn forget(&self, refused: &Token) -> bool {
        let mut state = self.0.lock().await;
        let Some(login) = state.login.as_ref().filter(|login| login.token == *refused) else {
            // Somebody else was here before.
            return true;
        };
        let known = |at: Instant| at.elapsed() < NOT_THE_TOKEN;
        if login.refused_new.is_some_and(known) {
            return false;
        }
        state.login = None;
        true
    }

    /// A server refused a token that was got after another was refused.
    pub(crate) async fn refused_new(&self, token: &Token) {
        let mut state = self.0.lock().await;
        let login = state.login.as_mut();
        if let Some(login) = login.filter(|login| login.token == *token) {
            login.refused_new = Some(Instant::now());
        }
    }
}

impl State {
    async fn log_in(&mut self, door: &Door<'_>) -> Result<Token, Error> {
        if let Some((at, said)) = &self.refused
            && at.elapsed() < REFUSED
        {
            return Err(Error::Denied(said.clone()));
        }
        self.refused = None;
        match door.log_in().await {
            Ok(login) => {
                let token = login.token.clone();
                self.login = Some(login);
                Ok(token)
            }
            Err(Error::Denied(said)) => {
                self.refused = Some((Instant::now(), said.clone()));
                Err(Error::Denied(said))
            }
            Err(error) => Err(error),
        }
    }

    /// The token there is, if it is still good, instead of an error of its renewal.
    fn old_token(&mut self, error: Error, door: &Door<'_>) -> Result<Token, Error> {
        let now = Instant::now();
        let Some(login) = self.login.as_mut().filter(|login| now < login.end) else {
            return Err(error);
        };
        tracing::warn!(%error, server = door.http.address(), "cannot renew the token, keeping the former one");
        login.renew = now + (login.end - now) / 4;
        Ok(login.token.clone())
    }
}

impl Door<'_> {
    async fn log_in(&self) -> Result<Login, Error> {
        let mut answer = self.ask(["v1", "auth", "login"]).await?;
        if is_missing(answer.status) {
            answer = self.ask(["v3", "auth", "user", "login"]).await?;
        }
        let server = self.http.address();
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Error::Denied(self.refusal()));
            }
            status if is_missing(status) => {
                return Err(Error::Unsupported(format!(
                    "{server} has no login; is the path of its address right?"
                )));
            }
            // Nacos 2 says only the name of a user whom it does not know.
            StatusCode::INTERNAL_SERVER_ERROR if text(&answer.body).contains(self.username) => {
                return Err(Error::Denied(self.refusal()));
            }
            status => {
                let said = text(&answer.body);
                let what = format!("{server}: login: {said} ({status})");
                return Err(Error::Refused(what));
            }
        }
        self.meter.answered();
        let raw = RawLogin::read(&answer.body)?;
        let life = raw.life();
        // The token was made last: to hash the password is what took the time.
        let now = Instant::now();
        Ok(Login {
            token: Token(raw.access_token),
            renew: now + life.mul_f64(0.8),
            end: now + life,
            refused_new: None,
        })
    }

    fn refusal(&self) -> String {
        let (server, path): (_, &Path) = (self.http.address(), self.file.path());
        let (user, path) = (self.username, path.display());
        format!("{server} does not take the password of user `{user}` in {path}")
    }

    async fn ask(&self, path: impl IntoIterator<Item = &'static str>) -> Result<Answer, Error> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", self.username)
            .append_pair("password", &self.file.read()?)
            .finish();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = Request::new(Method::POST, path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(form)
            .deadline(LOGIN);
        self.meter.asked();
        self.http.send(&request).await.map_err(|error| match error {
            // Servers without the console's part say status 0 to a wrong password.
            HttpError::Broken { problem, .. } if problem.contains("status-code") => {
                Error::Denied(self.refusal())
            }
            other => unreachable(other),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLogin {
    access_token: String,
    /// In seconds.
    token_ttl: Option<u64>,
}

impl RawLogin {
    fn read(json: &[u8]) -> Result<Self, Error> {
        let raw = serde_json::from_slice(json).or_else(|error| {
            let inner = json::data(json).ok().and_then(Result::ok);
            inner.map_or(Err(error), serde_json::from_slice)
        });
        // The error would not repeat the answer, which holds the token, but for its types.
        raw.map_err(|_| Error::Protocol("the answer to a login has no token".into()))
    }

    fn life(&self) -> Duration {
        /// What Nacos' own settings say.
        const USUAL: u64 = 18_000;
        const YEAR: u64 = 365 * 24 * 3600;
        let seconds = self.token_ttl.filter(|seconds| *seconds > 0);
        Duration::from_secs(seconds.unwrap_or(USUAL).min(YEAR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: u128 = 1_795_252_683_411;

    /// Signatures are from Python's `hmac`.
    #[test]
    fn signatures() {
        let name = Name::read("G@@orders", None);
        for (subject, data, signature) in [
            (
                Subject::Services,
                "1795252683411",
                "TE5dtnhQMoc0o5zBhgzwJHu7/hI=",
            ),
            (
                Subject::Service(&name),
                "1795252683411@@G@@orders",
                "oVUPwQy2/PbHPZodF3p/eNjcLWY=",
            ),
        ] {
            let Proof::Signature(fields) = sign_at("key", "secret", subject, MILLIS) else {
                panic!("no signature")
            };
            let expected = [("ak", "key"), ("signature", signature), ("data", data)];
            assert_eq!(fields, expected.map(|(k, v)| (k, v.to_owned())));
        }
        for (tenant, signature) in [
            ("ns", "sVKTrQQTogkGpCL65dVV5J4N0Lw="),
            ("", "7JmBP7wffW1qiAa1yAn9CYVoias="),
        ] {
            let group = "mapping";
            let subject = Subject::Configs { tenant, group };
            let Proof::Signature(fields) = sign_at("key", "secret", subject, MILLIS) else {
                panic!("no signature")
            };
            let expected = [
                ("Spas-AccessKey", "key"),
                ("Spas-Signature", signature),
                ("Timestamp", "1795252683411"),
            ];
            assert_eq!(fields, expected.map(|(k, v)| (k, v.to_owned())));
        }
    }

    #[test]
    fn answers_to_logins() {
        let plain = r#"{"accessToken":"t","tokenTtl":10,"globalAdmin":true,"username":"nacos"}"#;
        let wrapped = format!(r#"{{"code":0,"message":"success","data":{plain}}}"#);
        for json in [plain, &wrapped] {
            let login = RawLogin::read(json.as_bytes()).unwrap();
            assert_eq!((&*login.access_token, login.life().as_secs()), ("t", 10));
        }
        for (ttl, life) in [
            ("0", 18_000),
            ("null", 18_000),
            ("18446744073709551615", 31_536_000),
        ] {
            let json = format!(r#"{{"accessToken":"t","tokenTtl":{ttl}}}"#);
            let login = RawLogin::read(json.as_bytes()).unwrap();
            assert_eq!(login.life().as_secs(), life);
        }
        let error = RawLogin::read(br#"{"accessToken":["secret"]}"#)
            .err()
            .unwrap();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token("secret".into());
        assert!(!format!("{token:?} {:?}", token.bearer()).contains("secret"));
    }
}
