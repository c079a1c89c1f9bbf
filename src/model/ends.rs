//! Where an answer ends, in one place: at the tokens that the model's files name (`config.json`, `generation_config.json`, a GGUF file's keys), at the tokenizer's
//! `eos_token`, and at the token with which the chat template closes an assistant's turn.

use super::chat::{Conversation, Ending, Message};
use super::tokenizer::Special;
use super::{ChatTemplate, Config, Encoder, Model, ModelError, Tokenizer};

/// Stands for an answer: a private letter, which no template writes.
const ANSWER: &str = "\u{e000}";

impl<W> Model<W> {
    /// With all tokens that end an answer. Every reader of a format calls it, as does whatever gives a model another template.
    pub(crate) fn with_ends(mut self) -> Result<Model<W>, ModelError> {
        complete(&mut self.config, &self.tokenizer, &self.chat)?;
        Ok(self)
    }
}

/// Adds to the ends that a configuration names those of the tokenizer and the template.
pub fn complete(config: &mut Config, tokenizer: &Tokenizer, chat: &ChatTemplate) -> Result<(), ModelError> {
    let turn = turn_end(Encoder { tokenizer, chat })?.map(|special| special.id);
    for id in tokenizer.eos.as_ref().map(|eos| eos.id).into_iter().chain(turn) {
        // A text with a token beyond the vocabulary is refused when it is encoded.
        if (id as usize) < config.vocab_size {
            config.add_end(id);
        }
    }
    Ok(())
}

/// The special token that the template writes behind an assistant's last answer. None without such a token, and of a template that refuses a plain question and answer.
pub fn turn_end(encoder: Encoder) -> Result<Option<Special>, ModelError> {
    let chat = Conversation::of(vec![Message::user("a"), Message::assistant(ANSWER)]);
    // Which day it is does not change the end.
    let template = encoder.chat.clone().at(Some(0));
    let text = match template.render(&chat, Ending::Complete, encoder.tokenizer) {
        Ok(text) => text,
        // The machine is at fault, and another one would find the end.
        Err(error @ (ModelError::Machine(_) | ModelError::Memory(_) | ModelError::Stopped)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let behind = text.rsplit_once(ANSWER).map_or("", |(_, behind)| behind.trim_start());
    let end = encoder.tokenizer.special_starts(behind).and_then(|length| behind.get(..length));
    Ok(end.and_then(|end| encoder.tokenizer.special(end)))
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::tokenizer::tests::with_specials;
    use super::*;

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

    fn ends(template: &str, eos: Option<u32>, named: Option<&str>) -> Vec<u32> {
        let mut tokenizer = with_specials(&["<|im_start|>", "<|im_end|>", "<end>"]);
        tokenizer.eos = named.and_then(|text| tokenizer.special(text));
        let mut config = Config { vocab_size: 260, eos_token_id: eos, ..tiny() };
        complete(&mut config, &tokenizer, &ChatTemplate::of_model(template)).unwrap();
        config.end_tokens().collect()
    }

    #[test]
    fn the_files_the_tokenizer_and_the_template_count() {
        assert_eq!(ends(CHATML, Some(0), None), [0, 258]);
        assert_eq!(ends(CHATML, Some(0), Some("<end>")), [0, 259, 258]);
        assert_eq!(ends(CHATML, None, Some("<|im_end|>")), [258]);
        assert_eq!(ends("{{ messages[1].content }}", Some(0), None), [0]);
        assert_eq!(ends("{{ raise_exception('no') }}", None, None), Vec::<u32>::new());
        // The turn is closed before the whole is.
        let phi = "{% for m in messages %}<|im_start|>{{ m.content }} <|im_end|>\n{% endfor %}<end>";
        assert_eq!(ends(phi, Some(0), None), [0, 258]);
        assert_eq!(ends("{{ messages[1].content }}{{ strftime_now('%d') }}", Some(0), None), [0]);
    }
}
