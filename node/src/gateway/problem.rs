//! Errors of the REST interface, as RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::queries::QueryError;
use crate::transaction::{DecodeError, Rejection};

/// An `application/problem+json` answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Stable CamelCase reason.
    title: &'static str,
    status: u16,
    /// A sentence for the reader.
    detail: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: "about:blank", title: reason, status: status.as_u16(), detail: detail.into() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", detail)
    }

    /// Stable reason, for metrics.
    pub(super) fn reason(&self) -> &'static str {
        self.title
    }
}

impl From<&Rejection> for Problem {
    fn from(rejection: &Rejection) -> Self {
        let status = match rejection {
            Rejection::Malformed(DecodeError::TooLarge(_) | DecodeError::MemoTooLong(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Rejection::Malformed(_)
            | Rejection::WrongChain { .. }
            | Rejection::InvalidSignature
            | Rejection::Expired { .. } => StatusCode::BAD_REQUEST,
            Rejection::AlreadyPending
            | Rejection::AlreadyFinalised
            | Rejection::NonceTooLow { .. }
            | Rejection::InsufficientBalance { .. } => StatusCode::CONFLICT,
            Rejection::Busy => StatusCode::TOO_MANY_REQUESTS,
            Rejection::TimedOut | Rejection::NotAValidator | Rejection::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, rejection.reason(), rejection.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let (status, reason) = match error {
            QueryError::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            QueryError::Pruned { .. } => (StatusCode::GONE, "Pruned"),
            QueryError::Future { .. } => (StatusCode::NOT_FOUND, "FutureHeight"),
            QueryError::Busy => (StatusCode::TOO_MANY_REQUESTS, "Busy"),
            QueryError::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "StorageFailed"),
            QueryError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        };
        Self::new(status, reason, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
