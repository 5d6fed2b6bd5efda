//! Tools that the language model may call.

use std::time::Duration;

use crate::{
    config::Reader,
    providers::llm::MAX_IMAGE_BYTES,
    tools::{
        Filler, ToolLimits,
        mcp::McpConfig,
        webhook::{AllowedUrl, WebhookConfig, WebhookSecret},
    },
};

/// Steps that are too many for an answer that somebody waits for.
const MAX_STEPS: u32 = 20;

const DEFAULT_FILLER: &str = "One moment.";
const MAX_FILLER_BYTES: usize = 240;

#[derive(Clone, Debug, Default)]
pub struct ToolsConfig {
    /// `TOOL_TIMEOUT_MS`, `TOOL_MAX_STEPS`, `TOOL_FILLER`, `TOOL_FILLER_MS`, `TOOL_UPLOAD_MAX_BYTES`
    pub limits: ToolLimits,
    /// None calls no webhooks (`TOOL_WEBHOOK_URLS`, `TOOL_WEBHOOK_SECRET`).
    pub webhooks: Option<WebhookConfig>,
    /// The table `mcp` of the file.
    pub mcp: Vec<McpConfig>,
}

impl Reader<'_> {
    pub(super) fn tools(&mut self) -> ToolsConfig {
        let defaults = ToolLimits::default();
        let max_steps = self.parsed("TOOL_MAX_STEPS").unwrap_or(defaults.max_steps);
        if !(1..=MAX_STEPS).contains(&max_steps) {
            self.problem("TOOL_MAX_STEPS", format!("must be 1 to {MAX_STEPS}"));
        }
        let timeout = self.millis("TOOL_TIMEOUT_MS", defaults.timeout.as_millis() as u64);
        let limits = ToolLimits {
            timeout,
            max_steps,
            filler: self.filler(),
            max_upload_bytes: self.max_upload_bytes(defaults.max_upload_bytes),
        };
        let mcp = self.file.as_mut().map(|file| std::mem::take(&mut file.mcp)).unwrap_or_default();
        ToolsConfig { limits, webhooks: self.webhooks(), mcp }
    }

    fn max_upload_bytes(&mut self, default: usize) -> usize {
        let bytes = self.parsed("TOOL_UPLOAD_MAX_BYTES").unwrap_or(default);
        if !(1..=MAX_IMAGE_BYTES).contains(&bytes) {
            self.problem("TOOL_UPLOAD_MAX_BYTES", format!("must be 1 to {MAX_IMAGE_BYTES}"));
        }
        bytes
    }

    fn filler(&mut self) -> Option<Filler> {
        let after = self.millis("TOOL_FILLER_MS", Duration::from_millis(1500).as_millis() as u64);
        let text = self.text("TOOL_FILLER").unwrap_or_else(|| DEFAULT_FILLER.into());
        if text.len() > MAX_FILLER_BYTES {
            self.problem("TOOL_FILLER", format!("must have at most {MAX_FILLER_BYTES} bytes"));
        }
        (text != "off").then_some(Filler { text, after })
    }

    fn webhooks(&mut self) -> Option<WebhookConfig> {
        let (urls, secret) = (self.text("TOOL_WEBHOOK_URLS"), self.secret("TOOL_WEBHOOK_SECRET"));
        let (urls, secret) = match (urls, secret) {
            (None, None) => return None,
            (None, Some(_)) => {
                self.note("TOOL_WEBHOOK_SECRET", "no effect without TOOL_WEBHOOK_URLS");
                return None;
            }
            (Some(_), None) => {
                self.problem("TOOL_WEBHOOK_URLS", "needs TOOL_WEBHOOK_SECRET");
                return None;
            }
            (Some(urls), Some(secret)) => (urls, secret),
        };
        let mut allowed = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            match AllowedUrl::parse(url) {
                Ok(url) => allowed.push(url),
                Err(problem) => self.problem("TOOL_WEBHOOK_URLS", format!("\"{url}\": {problem}")),
            }
        }
        match WebhookSecret::parse(&secret) {
            Ok(secret) => Some(WebhookConfig { urls: allowed, secret }),
            Err(problem) => {
                self.problem("TOOL_WEBHOOK_SECRET", problem);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_limits_of_tools_are_settings() {
        let tools = read(&[("TOOL_TIMEOUT_MS", "2500"), ("TOOL_MAX_STEPS", "2")]).unwrap().tools;
        assert_eq!((tools.limits.timeout, tools.limits.max_steps), (Duration::from_millis(2500), 2));

        for steps in ["0", "21"] {
            let problem = read(&[("TOOL_MAX_STEPS", steps)]).unwrap_err().to_string();
            assert_eq!(problem, "TOOL_MAX_STEPS: must be 1 to 20");
        }
    }

    #[test]
    fn the_largest_upload_is_a_setting_and_no_larger_than_what_models_take() {
        let largest = |bytes| read(&[("TOOL_UPLOAD_MAX_BYTES", bytes)]);

        assert_eq!(largest("").unwrap().tools.limits.max_upload_bytes, 2 * 1024 * 1024);
        assert_eq!(largest("3145728").unwrap().tools.limits.max_upload_bytes, MAX_IMAGE_BYTES);
        for bytes in ["0", "3145729"] {
            let problem = largest(bytes).unwrap_err().to_string();
            assert_eq!(problem, "TOOL_UPLOAD_MAX_BYTES: must be 1 to 3145728");
        }
    }

    #[test]
    fn the_filler_is_a_text_or_off() {
        let filler = |value| read(&[("TOOL_FILLER", value)]).unwrap().tools.limits.filler;

        let default = filler("").unwrap();
        assert_eq!((default.text.as_str(), default.after), ("One moment.", Duration::from_millis(1500)));
        assert_eq!(filler("Einen Moment.").unwrap().text, "Einen Moment.");
        assert!(filler("off").is_none());
    }

    #[test]
    fn webhooks_need_urls_that_are_ones_and_a_secret() {
        let urls = "https://june.example/hooks/, http://127.0.0.1:9000/one";
        let webhooks = read(&[("TOOL_WEBHOOK_URLS", urls), ("TOOL_WEBHOOK_SECRET", SECRET)]).unwrap();
        assert_eq!(webhooks.tools.webhooks.unwrap().urls.len(), 2);

        let problems = read(&[("TOOL_WEBHOOK_URLS", urls)]).unwrap_err().problems;
        assert_eq!(problems, ["TOOL_WEBHOOK_URLS: needs TOOL_WEBHOOK_SECRET"]);
        let problems = read(&[("TOOL_WEBHOOK_URLS", "ftp://a/,b"), ("TOOL_WEBHOOK_SECRET", "short")]);
        let problems = problems.unwrap_err().problems;
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(!problems.concat().contains("short"));
        let notes = read(&[("TOOL_WEBHOOK_SECRET", SECRET)]).unwrap().notes;
        assert!(notes.iter().any(|note| note.starts_with("TOOL_WEBHOOK_SECRET: no effect")), "{notes:?}");
    }
}
