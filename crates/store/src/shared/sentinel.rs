//! Connections to the primary that sentinels name.

use std::time::Duration;

use redis::Value;
use tokio::time::timeout;

use super::{
    connection::{CallError, StoreCall, StoreConnection as _, first_error},
    dial::{ServerConnection, ServerDialer},
    servers::ServerAddress,
};

/// Time limit for one sentinel, and for the primary that it names.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the sentinels in order, and connects to the first primary that one of them names.
pub(crate) async fn dial_primary(
    dialer: &ServerDialer,
    sentinels: &[ServerAddress],
    service: &str,
) -> Result<ServerConnection, CallError> {
    let mut last_error = CallError::Connection("no sentinel is configured".to_owned());
    for sentinel in sentinels {
        let attempt = async {
            let primary = ask_sentinel(dialer, sentinel, service).await?;
            let connection = dialer.dial(&primary).await?;
            check_primary(&connection).await?;
            Ok(connection)
        };
        match timeout(SENTINEL_TIMEOUT, attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = CallError::Timeout,
        }
        tracing::debug!(%sentinel, error = %last_error, "no connection through this sentinel");
    }
    Err(last_error)
}

/// Returns the address of the primary. Authenticates only if the sentinel requires it: one without a password rejects
/// authentication.
async fn ask_sentinel(
    dialer: &ServerDialer,
    sentinel: &ServerAddress,
    service: &str,
) -> Result<ServerAddress, CallError> {
    let call = StoreCall::new(b"");
    let call = call.command("SENTINEL", &[b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()]);
    for has_credentials in [false, true] {
        let connection = dialer.for_sentinels(has_credentials).dial(sentinel).await?;
        let replies = connection.call(&call).await?;
        match replies.first() {
            Some(Value::ServerError(error)) if error.code() == "NOAUTH" && !has_credentials => {}
            Some(Value::ServerError(error)) => return Err(CallError::from_server(error)),
            Some(Value::Array(parts)) => return parse_primary(parts),
            Some(Value::Nil) => {
                let error = "the sentinel has no primary of this service; compare its name";
                return Err(CallError::Reply(error));
            }
            _ => break,
        }
    }
    Err(CallError::Reply("the sentinel did not return an address"))
}

fn parse_primary(parts: &[Value]) -> Result<ServerAddress, CallError> {
    let [Value::BulkString(host), Value::BulkString(port)] = parts else {
        return Err(CallError::Reply("the sentinel returned an invalid address"));
    };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let port = text(port).and_then(|port| port.parse().ok());
    let address = text(host).zip(port).and_then(|(host, port)| ServerAddress::new(host, port));
    address.ok_or(CallError::Reply("the sentinel returned an invalid address"))
}

/// Checks that the server is a primary. Between a fail-over and the next contact of the sentinels with the old primary,
/// a sentinel may name a replica. A server that forbids HELLO is accepted: writes to a replica fail, and end the
/// connection.
async fn check_primary(connection: &ServerConnection) -> Result<(), CallError> {
    let replies = connection.call(&StoreCall::new(b"").command("HELLO", &[])).await?;
    if first_error(&replies).is_some() {
        return Ok(());
    }
    let Some(Value::Array(fields)) = replies.first() else { return Ok(()) };
    let is_text = |value: &Value, text: &str| match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        _ => false,
    };
    let role = fields.as_chunks::<2>().0.iter().find(|[name, _]| is_text(name, "role"));
    match role {
        Some([_, role]) if !is_text(role, "master") => {
            Err(CallError::Reply("the server named by the sentinel is a replica"))
        }
        _ => Ok(()),
    }
}
