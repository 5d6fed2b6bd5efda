//! Spoken answers as files: whoever knows the name may fetch one, while it is there.
//!
//! Players ask for parts: AVPlayer plays nothing from a server that does not answer with them.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;

use crate::{error::Code, http::AppState, http::error::ApiError};

/// `GET /clips/{clip}.wav`
pub async fn fetch(
    app: web::Data<AppState>,
    request: HttpRequest,
    name: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let gone = || ApiError::new(Code::NotFound, "there is no such clip, or not any more");
    let wav = name.strip_suffix(".wav").and_then(|name| app.clips.get(name)).ok_or_else(gone)?;
    let wanted = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    Ok(answer(&wav, wanted))
}

fn answer(wav: &Bytes, wanted: Option<&str>) -> HttpResponse {
    let size = wav.len();
    let part = wanted.map_or(Part::Whole, |range| part(range, size));
    let (status, content, range) = match part {
        Part::Whole => (StatusCode::OK, wav.clone(), None),
        Part::Of(first, last) => {
            let content = wav.slice(first..=last);
            (StatusCode::PARTIAL_CONTENT, content, Some(format!("bytes {first}-{last}/{size}")))
        }
        Part::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{size}"))),
    };
    let mut response = HttpResponse::build(status);
    response
        .content_type("audio/wav")
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CACHE_CONTROL, "no-store"));
    if let Some(range) = range {
        response.insert_header((header::CONTENT_RANGE, range));
    }
    response.body(content)
}

/// What of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first to the last byte.
    Of(usize, usize),
    /// What is not there.
    Nothing,
}

/// Reads a `Range` of one part (RFC 9110 §14.1.2). What makes no sense, or names several, is ignored, as
/// the RFC allows.
fn part(range: &str, size: usize) -> Part {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first > last => Part::Whole,
        (Ok(first), _) if first >= size => Part::Nothing,
        (Ok(first), Ok(last)) => Part::Of(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.trim().is_empty() => Part::Of(first, size - 1),
        (Err(_), Ok(0)) if first.trim().is_empty() => Part::Nothing,
        (Err(_), Ok(tail)) if first.trim().is_empty() => Part::Of(size.saturating_sub(tail), size - 1),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_player_gets_the_part_it_asks_for() {
        for (range, expected) in [
            ("bytes=0-1", Part::Of(0, 1)),
            ("bytes=0-", Part::Of(0, 99)),
            ("bytes=90-1000", Part::Of(90, 99)),
            ("bytes=-10", Part::Of(90, 99)),
            ("bytes=-1000", Part::Of(0, 99)),
            ("bytes=100-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
    }
}
