//! Problem details (RFC 9457) for clients that ask for them; everyone else gets the original's errors.
//!
//! Every error is made by `reply`, which leaves a [`Refusal`] beside the original's body. This layer stands outside
//! of everything that can refuse, so that a 404, a 429 or a 503 of the stack is a problem as well.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::accept::weighted;
use crate::request_id;

const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";

/// What was refused, in a form that both kinds of error are written from. A response extension.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// Names the problem's type.
    pub(crate) kind: &'static str,
    /// One text a fault.
    pub(crate) texts: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    instance: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    /// Where there is more than one fault.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
}

/// Rewrites errors where the request prefers problem details.
pub(crate) async fn negotiate(request: Request, next: Next) -> Response {
    let asked = asks_for_problem(request.headers()).then(|| {
        let id = request_id::of(request.headers()).to_owned();
        (request.uri().path().to_owned(), id)
    });
    let mut response = next.run(request).await;
    let Some(refusal) = response.extensions_mut().remove::<Refusal>() else {
        return response;
    };
    response
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("accept"));
    if let Some((path, id)) = asked {
        write(&mut response, &refusal, &path, &id);
    }
    response
}

fn write(response: &mut Response, refusal: &Refusal, path: &str, id: &str) {
    let status = response.status();
    let problem = Problem {
        r#type: format!("urn:shopfloor:problem:{}", refusal.kind),
        title: title(status),
        status: status.as_u16(),
        detail: refusal.texts.join("; "),
        instance: path,
        request_id: id,
        errors: if refusal.texts.len() > 1 {
            &refusal.texts
        } else {
            &[]
        },
    };
    match serde_json::to_vec(&problem) {
        Ok(body) => {
            *response.body_mut() = Body::from(body);
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        }
        // The original's body stays.
        Err(error) => tracing::error!(%error, "a problem could not be written as JSON"),
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// True where `Accept` names problem details and likes plain JSON no better. A wildcard names nothing: clients that
/// take anything get what they always got.
fn asks_for_problem(headers: &HeaderMap) -> bool {
    let (mut problem, mut json) = (0.0, (0, 0.0));
    for (name, quality) in weighted(headers, &header::ACCEPT) {
        if name.eq_ignore_ascii_case(PROBLEM) {
            problem = quality;
        }
        // The most exact range counts.
        let exactness = match name.as_str() {
            _ if name.eq_ignore_ascii_case(JSON) => 3,
            "application/*" => 2,
            "*/*" => 1,
            _ => 0,
        };
        if exactness > json.0 {
            json = (exactness, quality);
        }
    }
    problem > 0.0 && problem >= json.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_go_to_those_who_name_them_and_like_json_no_better() {
        for (accept, asked) in [
            ("application/problem+json", true),
            ("Application/Problem+JSON; q=0.1", true),
            ("application/json, application/problem+json", true),
            (
                "application/problem+json;q=0.5, application/json;q=0.4, */*",
                true,
            ),
            ("application/problem+json;q=0.5, */*;q=0.5", true),
            ("application/problem+json;q=0.5, application/json", false),
            ("application/problem+json;q=0.5, */*", false),
            ("application/problem+json;q=0", false),
            ("application/problem+json;q=none", false),
            ("*/*", false),
            ("application/*", false),
            ("text/html, application/json;q=0.9", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(asks_for_problem(&headers), asked, "{accept}");
        }
        assert!(!asks_for_problem(&HeaderMap::new()));
    }
}
