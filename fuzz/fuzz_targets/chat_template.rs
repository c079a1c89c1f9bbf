//! A chat template, rendered for a short conversation.
#![no_main]

use slmops::model::chat::{ChatTemplate, Conversation, Ending, Message};

libfuzzer_sys::fuzz_target!(|data: &str| {
    let messages = [Message::user("open <b>"), Message::assistant("{}"), Message::user("and?")];
    if let Ok(template) = ChatTemplate::new(data) {
        let _ = template.render(&Conversation::of(messages.to_vec()), Ending::AwaitsAnswer, &slmops_fuzz::bytes_only());
    }
});
