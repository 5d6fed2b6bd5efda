//! One call of the language model, which counts its tokens against the budget.

use crate::{
    clock,
    ids::UserId,
    limits::{
        Limit, Limits, Refusal,
        llm_budget::{LlmBudget, OverBudget, Used},
    },
    providers::llm::{LlmEvent, Usage},
    telemetry,
};

/// Characters of text that are about one token.
const BYTES_PER_TOKEN: usize = 4;

/// A call in progress. Its tokens are those that the provider reports; where it reports none, they are estimated by
/// the length of the text. Dropping it ends the call.
pub(crate) struct ModelCall {
    limits: Limits,
    user: UserId,
    /// What was counted at the beginning.
    prompt_tokens: u32,
    text_bytes: usize,
    reported: Option<Usage>,
    /// It takes no place of the calls at the same time.
    is_beside: bool,
}

impl ModelCall {
    pub(super) fn begin(limits: &Limits, user: &UserId, prompt_bytes: usize) -> Result<Self, Refusal> {
        Self::new(limits, user, prompt_bytes, false)
    }

    pub(super) fn beside(limits: &Limits, user: &UserId, prompt_bytes: usize) -> Result<Self, Refusal> {
        Self::new(limits, user, prompt_bytes, true)
    }

    fn new(limits: &Limits, user: &UserId, prompt_bytes: usize, is_beside: bool) -> Result<Self, Refusal> {
        let prompt_tokens = tokens(prompt_bytes);
        let begin = if is_beside { LlmBudget::begin_beside } else { LlmBudget::begin };
        let begun = begin(&mut limits.shared.llm.lock(), user, prompt_tokens, clock::now());
        begun.map_err(|over| limit(over).refuse(over.retry_after))?;
        metrics::counter!(telemetry::LLM_CALLS).increment(1);
        let (limits, user) = (limits.clone(), user.clone());
        Ok(Self { limits, user, prompt_tokens, text_bytes: 0, reported: None, is_beside })
    }

    /// The model produced something.
    pub(crate) fn observe(&mut self, event: &LlmEvent) {
        match event {
            LlmEvent::TextDelta(text) => self.text_bytes += text.len(),
            LlmEvent::ToolCall(call) => self.text_bytes += call.arguments.to_string().len(),
            LlmEvent::Usage(usage) => self.reported = Some(*usage),
            LlmEvent::Truncated => {}
        }
    }
}

impl Drop for ModelCall {
    fn drop(&mut self) {
        let reported = self.reported.unwrap_or_default();
        let input = reported.input_tokens.unwrap_or(self.prompt_tokens);
        let output = reported.output_tokens.unwrap_or_else(|| tokens(self.text_bytes));
        let all = i64::from(input) + i64::from(output);
        metrics::counter!(telemetry::LLM_TOKENS).increment(u64::from(input) + u64::from(output));
        let more = all - i64::from(self.prompt_tokens);
        let end = if self.is_beside { LlmBudget::end_beside } else { LlmBudget::end };
        end(&mut self.limits.shared.llm.lock(), &self.user, more, clock::now());
    }
}

fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX)
}

fn limit(over: OverBudget) -> Limit {
    match (over.used, over.of_gateway) {
        (Used::Running, _) => Limit::LlmRunning,
        (Used::CallsPerMinute, false) => Limit::LlmCallsPerMinute,
        (Used::CallsPerDay, false) => Limit::LlmCallsPerDay,
        (Used::TokensPerDay, false) => Limit::LlmTokensPerDay,
        (Used::CallsPerMinute, true) => Limit::LlmGatewayCallsPerMinute,
        (Used::CallsPerDay, true) => Limit::LlmGatewayCallsPerDay,
        (Used::TokensPerDay, true) => Limit::LlmGatewayTokensPerDay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::LimitsConfig, limits::Allowance};

    /// Limits of 100 tokens a day.
    fn limits() -> Limits {
        let llm_by_user = Allowance { tokens_per_day: 100, ..Allowance::default() };
        Limits::new(&LimitsConfig { llm_by_user, llm_running_by_user: 2, ..LimitsConfig::unlimited() })
    }

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    #[test]
    fn the_tokens_that_a_provider_reports_count_and_not_the_estimate() {
        let limits = limits();
        let mut call = limits.call_model(&ann(), 40).unwrap();
        call.observe(&LlmEvent::TextDelta("short".into()));
        call.observe(&LlmEvent::Usage(Usage { input_tokens: Some(50), output_tokens: Some(45) }));
        drop(call);

        let refused = limits.call_model(&ann(), 24).err().map(|refusal| refusal.limit);
        assert_eq!(refused, Some(Limit::LlmTokensPerDay));
        assert!(limits.call_model(&ann(), 20).is_ok());
    }

    #[test]
    fn where_a_provider_reports_none_four_bytes_are_a_token() {
        let limits = limits();
        let mut call = limits.call_model(&ann(), 40).unwrap();
        call.observe(&LlmEvent::TextDelta("x".repeat(320)));
        drop(call);

        assert!(limits.call_model(&ann(), 44).is_err());
        assert!(limits.call_model(&ann(), 40).is_ok());
    }

    #[test]
    fn a_call_beside_the_conversation_takes_no_place_of_it_and_counts_all_the_same() {
        let limits = limits();
        let beside: Vec<_> = (0..3).map(|_| limits.translate(&ann(), 40).unwrap()).collect();

        let answers: Vec<_> = (0..2).map(|_| limits.call_model(&ann(), 40).unwrap()).collect();
        drop(beside);
        let third = limits.call_model(&ann(), 4).err().map(|refusal| refusal.limit);
        drop(answers);
        let _used = limits.translate(&ann(), 200).unwrap();

        assert_eq!(third, Some(Limit::LlmRunning));
        let refused = limits.call_model(&ann(), 4).err().map(|refusal| refusal.limit);
        assert_eq!(refused, Some(Limit::LlmTokensPerDay));
    }

    #[test]
    fn a_hedge_counts_as_a_call_of_the_budget_or_is_not_made() {
        let limits = limits();
        let _answer = limits.call_model(&ann(), 160).unwrap();

        assert!(limits.hedge(&ann(), 160));
        assert!(!limits.hedge(&ann(), 160), "20 of 100 tokens are left");
        assert!(limits.hedge(&ann(), 80));
    }

    #[test]
    fn a_user_has_only_so_many_calls_in_progress() {
        let limits = limits();
        let running: Vec<_> = (0..2).map(|_| limits.call_model(&ann(), 4).unwrap()).collect();
        let refused = limits.call_model(&ann(), 4).err().map(|refusal| refusal.limit);
        assert_eq!(refused, Some(Limit::LlmRunning));

        drop(running);

        assert!(limits.call_model(&ann(), 4).is_ok());
    }
}
