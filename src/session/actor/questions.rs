//! What comes over REST: lines that are asked, images of tool calls, and transcripts of STT services that transcribe
//! elsewhere.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::SessionActor;
use crate::{
    error::Code,
    protocol::ToolKind,
    session::{
        Input,
        messages::{AnswerToolCall, Ask, ClosedCall, FindToolCall, Taken, Transcribed, VoiceOnset},
        question::{Failure, QuestionId, Reply},
    },
};

impl SessionActor {
    fn ask(&mut self, Ask { question, replies, withdrawn }: Ask, ctx: &mut Context<Self>) {
        self.last_question += 1;
        let id = self.last_question;
        self.askers.push((id, replies));
        let is_blind = self.providers.llm.as_ref().is_some_and(|llm| !llm.sees_images());
        if is_blind && !question.images.is_empty() {
            let message = "images: none of the language models of this session sees images";
            return self.reply(id, Reply::Failed(Failure::new(Code::Unsupported, message)));
        }
        ctx.spawn(withdrawn.into_actor(self).map(move |_, actor, ctx| {
            actor.askers.retain(|(asker, _)| *asker != id);
            actor.step(Input::Withdrawn(id), ctx);
        }));
        self.step(Input::Asked(id, question), ctx);
    }

    pub(super) fn reply(&mut self, question: QuestionId, reply: Reply) {
        let Some(at) = self.askers.iter().position(|(asker, _)| *asker == question) else { return };
        let is_last = !matches!(reply, Reply::Delta(_));
        // One that does not read gets nothing more, and knows it by the end of the channel.
        let is_stuck = self.askers[at].1.try_send(reply).is_err();
        if is_last || is_stuck {
            self.askers.swap_remove(at);
        }
    }
}

impl Handler<Ask> for SessionActor {
    type Result = ();

    fn handle(&mut self, message: Ask, ctx: &mut Self::Context) {
        self.ask(message, ctx);
    }
}

impl Handler<FindToolCall> for SessionActor {
    type Result = Result<(), ClosedCall>;

    fn handle(&mut self, FindToolCall(call_id): FindToolCall, _: &mut Self::Context) -> Self::Result {
        self.session.client_call(&call_id)
    }
}

impl Handler<AnswerToolCall> for SessionActor {
    type Result = Result<(), ClosedCall>;

    fn handle(
        &mut self,
        AnswerToolCall { call_id, output }: AnswerToolCall,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        self.session.client_call(&call_id)?;
        self.step(Input::ToolAnswered(call_id, ToolKind::Client, Ok(output)), ctx);
        Ok(())
    }
}

impl Handler<Transcribed> for SessionActor {
    type Result = Option<Taken>;

    fn handle(&mut self, message: Transcribed, ctx: &mut Self::Context) -> Self::Result {
        self.step(Input::Transcribed(message), ctx);
        self.taken.take()
    }
}

impl Handler<VoiceOnset> for SessionActor {
    type Result = Option<Taken>;

    fn handle(&mut self, _: VoiceOnset, ctx: &mut Self::Context) -> Self::Result {
        self.step(Input::VoiceOnset, ctx);
        self.taken.take()
    }
}
