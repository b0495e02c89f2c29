//! Sessions of the operator page: in memory only, bounded in number and in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    admin::token::{AdminTokens, TokenIdentity},
    media::hex,
};

/// Name of the cookie.
const COOKIE: &str = "mcs_session";

/// `Strict`: no request that another site causes has the cookie. Without `Max-Age`, the browser forgets it at its end.
const ATTRIBUTES: &str = "HttpOnly; SameSite=Strict; Path=/";

/// Time without requests after which a session ends.
const MAX_IDLE: Duration = Duration::from_secs(30 * 60);

/// Time after which a session ends in any case.
const MAX_AGE: Duration = Duration::from_secs(8 * 3600);

/// Maximum number of sessions. A further one replaces the one that was used longest ago.
const MAX_SESSIONS: usize = 16;

/// Sessions by the digest of their cookie, so that no cookie is in memory. A session ends when its token is removed.
pub(super) struct SessionTable {
    tokens: AdminTokens,
    sessions: Mutex<Vec<OperatorSession>>,
}

struct OperatorSession {
    digest: [u8; 32],
    /// [`TokenIdentity::id`]
    token: u64,
    csrf: CsrfToken,
    opened: Instant,
    used: Instant,
}

/// Whether a request counts as use of the session. Requests that the page's script makes on its own do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionUse {
    Operator,
    Script,
}

/// What a request may use of its session.
#[derive(Clone)]
pub(super) struct PageSession {
    pub(super) csrf: CsrfToken,
    /// Name of the token that opened the session.
    pub(super) token_name: Arc<str>,
}

/// Secret of a session in each of its forms.
#[derive(Clone)]
pub(super) struct CsrfToken(String);

impl CsrfToken {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a form has this token. The time does not depend on the token.
    pub(super) fn is(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl SessionTable {
    pub(super) fn new(tokens: AdminTokens) -> Self {
        Self { tokens, sessions: Mutex::default() }
    }

    /// Opens a session. Returns the header that sets its cookie; `None` if the system has no randomness.
    pub(super) fn open(&self, token: &TokenIdentity, now: Instant) -> Option<HeaderValue> {
        let (secret, csrf) = (random()?, random()?);
        let mut sessions = self.lock_current(now);
        if sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = (0..sessions.len())
                .min_by_key(|index| sessions.get(*index).map(|session| session.used))
        {
            sessions.swap_remove(oldest);
        }
        sessions.push(OperatorSession {
            digest: digest(secret.as_bytes()),
            token: token.id,
            csrf: CsrfToken(csrf.to_string()),
            opened: now,
            used: now,
        });
        let cookie = Zeroizing::new(format!("{COOKIE}={}; {ATTRIBUTES}", *secret));
        let mut value = HeaderValue::from_str(&cookie).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the session that a request belongs to.
    pub(super) fn find(
        &self,
        headers: &HeaderMap,
        now: Instant,
        session_use: SessionUse,
    ) -> Option<PageSession> {
        let mut sessions = self.lock_current(now);
        let index = position(&sessions, headers)?;
        let session = sessions.get_mut(index)?;
        if session_use == SessionUse::Operator {
            session.used = now;
        }
        // A reload may have removed the token just now.
        let token_name = self.tokens.name(session.token)?;
        Some(PageSession { csrf: session.csrf.clone(), token_name })
    }

    /// Ends the session of a request. Returns the header that removes its cookie.
    pub(super) fn close(&self, headers: &HeaderMap) -> HeaderValue {
        let mut sessions = self.sessions.lock();
        if let Some(index) = position(&sessions, headers) {
            sessions.swap_remove(index);
        }
        HeaderValue::from_static("mcs_session=; Max-Age=0; HttpOnly; SameSite=Strict; Path=/")
    }

    /// Returns the sessions that have not ended.
    fn lock_current(&self, now: Instant) -> parking_lot::MutexGuard<'_, Vec<OperatorSession>> {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| {
            now.saturating_duration_since(session.used) < MAX_IDLE
                && now.saturating_duration_since(session.opened) < MAX_AGE
                && self.tokens.name(session.token).is_some()
        });
        sessions
    }
}

/// Returns the index of the session of a request. Other sites of the same domain can add cookies, so each cookie with the
/// name is tried.
fn position(sessions: &[OperatorSession], headers: &HeaderMap) -> Option<usize> {
    cookies(headers).find_map(|cookie| {
        let digest = digest(cookie.as_bytes());
        sessions.iter().position(|session| session.digest.ct_eq(&digest).into())
    })
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Returns 256 random bits in hexadecimal digits.
fn random() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).ok()?;
    Some(Zeroizing::new(hex(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::token::tests::load;

    /// Returns the headers of a request with a cookie that was set.
    fn request(set: &HeaderValue) -> HeaderMap {
        let cookie = set.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    const TOKENS: &str = "alice 0123456789abcdef\nbob fedcba9876543210\n";

    /// Returns an empty table, and the tokens of Alice and Bob.
    fn with_tokens() -> (SessionTable, TokenIdentity, TokenIdentity) {
        let tokens = AdminTokens::new(load(TOKENS, 0o600).unwrap());
        let (alice, bob) = (tokens.find(b"0123456789abcdef"), tokens.find(b"fedcba9876543210"));
        (SessionTable::new(tokens), alice.unwrap(), bob.unwrap())
    }

    fn is_open(table: &SessionTable, cookie: &HeaderValue, at: Instant) -> bool {
        table.find(&request(cookie), at, SessionUse::Operator).is_some()
    }

    #[test]
    fn cookie_is_random_and_has_its_attributes() {
        let ((table, alice, _), now) = (with_tokens(), Instant::now());
        let (first, second) = (table.open(&alice, now).unwrap(), table.open(&alice, now).unwrap());
        assert_ne!(first, second);
        assert!(first.is_sensitive());
        let (secret, attributes) = first.to_str().unwrap().split_once("; ").unwrap();
        assert_eq!(secret.len(), "mcs_session=".len() + 64);
        assert_eq!(attributes, "HttpOnly; SameSite=Strict; Path=/");
        assert!(
            !table.sessions.lock().iter().any(|session| secret.contains(&hex(&session.digest)))
        );
    }

    #[test]
    fn session_ends_after_30_minutes_without_use() {
        let ((table, alice, _), start) = (with_tokens(), Instant::now());
        let cookie = table.open(&alice, start).unwrap();
        let almost = Duration::from_secs(30 * 60 - 1);
        assert!(is_open(&table, &cookie, start + almost));
        assert!(is_open(&table, &cookie, start + 2 * almost));
        assert!(!is_open(&table, &cookie, start + 2 * almost + MAX_IDLE));
        // Ended for good.
        assert!(!is_open(&table, &cookie, start));
    }

    #[test]
    fn requests_of_the_script_do_not_extend_a_session() {
        let ((table, alice, _), start) = (with_tokens(), Instant::now());
        let cookie = table.open(&alice, start).unwrap();
        let half = start + MAX_IDLE / 2;
        assert!(table.find(&request(&cookie), half, SessionUse::Script).is_some());
        assert!(!is_open(&table, &cookie, start + MAX_IDLE));
    }

    #[test]
    fn session_ends_after_8_hours_in_any_case() {
        let ((table, alice, _), start) = (with_tokens(), Instant::now());
        let cookie = table.open(&alice, start).unwrap();
        let mut now = start;
        while now + MAX_IDLE / 2 < start + MAX_AGE {
            now += MAX_IDLE / 2;
            assert!(is_open(&table, &cookie, now));
        }
        assert!(!is_open(&table, &cookie, start + MAX_AGE));
    }

    #[test]
    fn number_of_sessions_is_bounded_and_the_least_used_is_replaced() {
        let ((table, alice, _), start) = (with_tokens(), Instant::now());
        let at = |number| start + Duration::from_secs(number);
        let cookies: Vec<_> =
            (0..16).map(|number| table.open(&alice, at(number)).unwrap()).collect();
        assert!(is_open(&table, &cookies[0], at(100)));
        let last = table.open(&alice, at(101)).unwrap();
        assert_eq!(table.sessions.lock().len(), MAX_SESSIONS);
        assert!(!is_open(&table, &cookies[1], at(102)));
        assert!(is_open(&table, &cookies[0], at(102)) && is_open(&table, &last, at(102)));
    }

    #[test]
    fn sessions_end_at_sign_out_and_cookies_of_others_are_ignored() {
        let ((table, alice, _), now) = (with_tokens(), Instant::now());
        let (cookie, other) = (table.open(&alice, now).unwrap(), table.open(&alice, now).unwrap());
        let secret = cookie.to_str().unwrap().split(';').next().unwrap();
        for (line, is_found) in [
            (format!("a=b; {secret}; c"), true),
            (format!("mcs_session=0; {secret}"), true),
            (secret.replace("mcs_session", "mcs_sessions"), false),
            (format!("{secret}0"), false),
            ("mcs_session=".to_owned(), false),
        ] {
            let headers =
                HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&line).unwrap())]);
            let found = table.find(&headers, now, SessionUse::Operator);
            assert_eq!(found.is_some(), is_found, "{line}");
        }
        assert!(table.close(&request(&cookie)).to_str().unwrap().contains("Max-Age=0"));
        assert!(!is_open(&table, &cookie, now));
        let csrf = table.find(&request(&other), now, SessionUse::Operator).unwrap().csrf;
        assert!(csrf.is(csrf.as_str()) && !csrf.is("") && !csrf.is(&csrf.as_str()[1..]));
    }

    #[test]
    fn session_has_the_name_of_its_token_and_ends_with_it() {
        let ((table, alice, bob), now) = (with_tokens(), Instant::now());
        let cookies = [table.open(&alice, now).unwrap(), table.open(&bob, now).unwrap()];
        let name = |cookie: &HeaderValue| {
            let session = table.find(&request(cookie), now, SessionUse::Operator);
            session.map(|session| session.token_name.to_string())
        };
        let names = || cookies.each_ref().map(name);
        assert_eq!(names(), [Some("alice".to_owned()), Some("bob".to_owned())]);
        table.tokens.replace(load("bob fedcba9876543210", 0o600).unwrap());
        assert_eq!(names(), [None, Some("bob".to_owned())]);
        assert_eq!(table.sessions.lock().len(), 1);
        table.tokens.replace(load("bob a-new-token-of-bob", 0o600).unwrap());
        // The same tokens once more: the sessions do not come back.
        table.tokens.replace(load(TOKENS, 0o600).unwrap());
        assert_eq!(names(), [None, None]);
    }
}
