//! `add_header`.

use dysvr_conf::template::Part;
use dysvr_conf::variable::Variable;
use http::HeaderMap;

use super::request::Request;
use super::template;

/// The header filter.
pub(super) fn filter(request: &mut Request, headers: &mut HeaderMap) {
    let conf = std::sync::Arc::clone(&request.conf.headers);
    if conf.add.is_empty() {
        return;
    }
    let usual = matches!(request.status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
    for add in conf.add.iter().filter(|add| usual || add.always) {
        let sent = |part: &Part| matches!(part, Part::Variable(Variable::SentHeader(_)));
        if add.value.parts.iter().any(sent) {
            request.sent_headers = Some(Box::new(headers.clone()));
        }
        if let Some(value) = template::header(request, &add.value) {
            headers.append(add.name.clone(), value);
        }
    }
}
