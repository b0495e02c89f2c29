//! Forms that browsers send.

use axum::{
    extract::Request,
    http::{HeaderMap, header},
};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::{
    admin::{
        error::AdminError,
        state::{BODY_TIME, MAX_BODY},
    },
    http::body,
};

/// Fields of a form. They may contain the token.
pub(super) struct PostedForm(Vec<(String, Zeroizing<String>)>);

impl PostedForm {
    /// Reads the body of a request.
    pub(super) async fn read(request: Request) -> Result<Self, AdminError> {
        let (head, body) = request.into_parts();
        if !has_form(&head.headers) {
            return Err(AdminError::Invalid("expected a form".to_owned()));
        }
        let body = body::read(body, &head.headers, MAX_BODY, BODY_TIME).await?;
        Ok(Self::parse(&body))
    }

    fn parse(body: &[u8]) -> Self {
        let fields = form_urlencoded::parse(body);
        Self(
            fields
                .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())))
                .collect(),
        )
    }

    /// Returns the value of a field, without spaces around it. `None` if it is missing, empty or repeated.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(other, _)| other == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value.trim()).filter(|value| !value.is_empty()),
            _ => None,
        }
    }
}

fn has_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().ok().and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| {
        essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_repetitions_are_rejected() {
        let form = PostedForm::parse(b"a=+x%20y%0A&b=&c=1&c=2&d=%3Cscript%3E");
        assert_eq!(form.field("a"), Some("x y"));
        assert_eq!(form.field("d"), Some("<script>"));
        for name in ["b", "c", "e"] {
            assert_eq!(form.field(name), None, "{name}");
        }
    }
}
