//! Changes: a page that asks for confirmation, and the change.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
};
use url::form_urlencoded;

use super::{
    forms::PostedForm,
    lookup::{ContentSection, LookupSubject, section},
    response::{PageLayout, PageResult, html, redirect},
    state::{PageState, operator},
};
use crate::{
    admin::{
        decisions::decide,
        error::AdminError,
        forget,
        protocol::{DecisionRequest, ForgetRequest},
        query,
    },
    media::hex,
};

/// Days for which a decision can be in force; the second is the default.
const DAYS: [u64; 5] = [7, 30, 90, 180, 365];

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Allow,
    Block,
    Withdraw,
    Forget,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    layout: PageLayout,
    action: Action,
    subject: String,
    /// What is known about the file.
    known: Option<ContentSection>,
}

impl Action {
    fn parse(name: &str) -> Result<Self, AdminError> {
        [Self::Allow, Self::Block, Self::Withdraw, Self::Forget]
            .into_iter()
            .find(|action| action.name() == name)
            .ok_or_else(|| {
                AdminError::Invalid("action: expected allow, block, withdraw or forget".to_owned())
            })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Withdraw => "withdraw",
            Self::Forget => "forget",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Block => "Block",
            Self::Withdraw => "Withdraw",
            Self::Forget => "Forget",
        }
    }

    fn question(self) -> &'static str {
        match self {
            Self::Allow => "Allow this file?",
            Self::Block => "Block this file?",
            Self::Withdraw => "Withdraw the decision about this file?",
            Self::Forget => "Forget the verdicts?",
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            Self::Allow => {
                "The file is clean for all requesters, whatever the engines find, on all replicas, until the decision \
                 ends."
            }
            Self::Block => {
                "The file is refused to all requesters, on all replicas, until the decision ends."
            }
            Self::Withdraw => "The engines decide about the file again.",
            Self::Forget => {
                "The next request scans again. A false positive comes back unless the signature was corrected."
            }
        }
    }

    /// Whether the change has an end.
    fn has_days(self) -> bool {
        matches!(self, Self::Allow | Self::Block)
    }

    /// Whether a comment is required.
    fn needs_comment(self) -> bool {
        self != Self::Forget
    }

    fn days() -> [u64; 5] {
        DAYS
    }
}

/// Asks for confirmation.
pub(super) async fn confirm(
    State(state): State<Arc<PageState>>,
    headers: HeaderMap,
    uri: Uri,
) -> PageResult {
    let session = state.session(&headers)?;
    let (mut action, mut subject) = (None, None);
    for (name, value) in query::parameters(&uri, &["action", "subject"])? {
        match &*name {
            "action" => action = Some(Action::parse(&value)?),
            _ => subject = Some(LookupSubject::parse(&value)?),
        }
    }
    let (Some(action), Some(subject)) = (action, subject) else {
        return Err(AdminError::Invalid("action and subject: missing".to_owned()).into());
    };
    let known = match &subject {
        LookupSubject::Content(content) => Some(section(&state.scanner(), *content).await?),
        LookupSubject::Media(_) => None,
    };
    let (layout, subject) = (PageLayout::new("Confirm", &session), subject.to_string());
    Ok(html(StatusCode::OK, &ConfirmPage { layout, action, subject, known }))
}

/// Makes a change.
pub(super) async fn change(State(state): State<Arc<PageState>>, request: Request) -> PageResult {
    let session = state.session(request.headers())?;
    let operator = operator(&request, &session);
    let form = PostedForm::read(request).await?;
    if !form.field("csrf").is_some_and(|csrf| session.csrf.is(csrf)) {
        return Err(AdminError::WrongForm.into());
    }
    let action = Action::parse(form.field("action").unwrap_or_default())?;
    let subject = LookupSubject::parse(form.field("subject").unwrap_or_default())?;
    let comment = form.field("comment").map(str::to_owned);
    if action == Action::Forget {
        let (content, mxc) = match &subject {
            LookupSubject::Content(content) => (Some(hex(content)), None),
            LookupSubject::Media(mxc) => (None, Some(mxc.to_string())),
        };
        let request = ForgetRequest { content, mxc, all: None, comment };
        forget::change(&state.admin, &operator, &request).await?;
    } else {
        let LookupSubject::Content(content) = &subject else {
            return Err(AdminError::Invalid("subject: expected a SHA-256".to_owned()).into());
        };
        let request = DecisionRequest {
            content: hex(content),
            action: action.name().to_owned(),
            comment: comment.unwrap_or_default(),
            seconds: if action.has_days() { Some(seconds(&form)?) } else { None },
        };
        decide(&state.admin, &operator, request).await?;
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("subject", &subject.to_string()).append_pair("done", action.name());
    Ok(redirect(&format!("/lookup?{}", query.finish())))
}

fn seconds(form: &PostedForm) -> Result<u64, AdminError> {
    let days = form.field("days").and_then(|days| days.parse().ok());
    let days = days.filter(|days| DAYS.contains(days));
    days.map(|days| days * 86_400)
        .ok_or_else(|| AdminError::Invalid("days: expected 7, 30, 90, 180 or 365".to_owned()))
}
