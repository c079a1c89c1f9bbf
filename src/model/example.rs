//! What a model learns from or is asked: texts → tokens through the chat template, and which of the tokens count.

use std::ops::Range;

use super::chat::{ChatTemplate, Ending, Message};
use super::{ModelError, Tokenizer};

/// A sequence and the tokens that the loss is taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub tokens: Vec<u32>,
    /// Ascending, apart from each other, from 1 on: the first token has nothing before it that could foretell it.
    pub scored: Vec<Range<usize>>,
}

impl Example {
    /// A prompt and what must follow it.
    pub fn of(prompt: Vec<u32>, completion: &[u32]) -> Example {
        let start = prompt.len().max(1);
        let mut tokens = prompt;
        tokens.extend_from_slice(completion);
        let scored = from(start, &tokens);
        Example { tokens, scored }
    }

    pub fn scored_tokens(&self) -> usize {
        self.scored.iter().map(Range::len).sum()
    }
}

/// Tokenizer and template of a model: how texts reach it.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub chat: &'a ChatTemplate,
}

impl Encoder<'_> {
    /// The tokens of a user's prompt, up to where the answer starts.
    pub fn prompt(&self, prompt: &str) -> Result<Vec<u32>, ModelError> {
        self.question(&[Message::user(prompt)])
    }

    /// The tokens of a conversation, up to where the assistant's next answer starts.
    pub fn question(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(messages, Ending::AwaitsAnswer, self.tokenizer)?)
    }

    /// A prompt and its completion, which counts.
    pub fn pair(&self, prompt: &str, completion: &str) -> Result<Example, ModelError> {
        self.conversation(&[Message::user(prompt), Message::assistant(completion)])
    }

    /// A conversation; everything that the assistant says counts, with the token that ends it.
    pub fn conversation(&self, messages: &[Message]) -> Result<Example, ModelError> {
        let mut example = Example { tokens: Vec::new(), scored: Vec::new() };
        for (text, counts) in self.pieces(messages)? {
            let start = example.tokens.len().max(1);
            example.tokens.extend(self.tokenizer.encode(&text)?);
            if counts == Counts::Yes && start < example.tokens.len() {
                example.scored.push(start..example.tokens.len());
            }
        }
        Ok(example)
    }

    /// A text, ended; all of it counts.
    pub fn text(&self, text: &str) -> Result<Example, ModelError> {
        let mut tokens = self.tokenizer.encode(text)?;
        tokens.extend(self.tokenizer.eos.as_ref().map(|eos| eos.id));
        let scored = from(1, &tokens);
        Ok(Example { tokens, scored })
    }

    /// A conversation as the texts that are encoded each on its own: an answer's tokens never depend on how it is read, because a
    /// prompt is encoded alone when the model is asked.
    pub fn pieces(&self, messages: &[Message]) -> Result<Vec<(String, Counts)>, ModelError> {
        let mut pieces = Vec::new();
        let mut done = String::new();
        let mut advance = |text: String, counts| {
            let Some(new) = text.strip_prefix(done.as_str()) else {
                let why = "a longer conversation does not begin as a shorter one, so answers cannot be told from questions";
                return Err(ModelError::unsupported("this chat template", why));
            };
            if !new.is_empty() {
                pieces.push((new.to_string(), counts));
            }
            done = text;
            Ok(())
        };
        for (i, message) in messages.iter().enumerate() {
            if message.role == "assistant" {
                advance(self.chat.render(&messages[..i], Ending::AwaitsAnswer, self.tokenizer)?, Counts::No)?;
                advance(self.chat.render(&messages[..=i], Ending::Complete, self.tokenizer)?, Counts::Yes)?;
            }
        }
        if messages.last().is_some_and(|message| message.role != "assistant") {
            advance(self.chat.render(messages, Ending::Complete, self.tokenizer)?, Counts::No)?;
        }
        Ok(pieces)
    }
}

fn from(start: usize, tokens: &[u32]) -> Vec<Range<usize>> {
    std::iter::once(start..tokens.len()).filter(|range| !range.is_empty()).collect()
}

/// Whether the loss is taken on a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    No,
    Yes,
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::bytes_only;
    use super::*;

    #[test]
    fn only_answers_count() {
        let (tokenizer, chat) = (bytes_only(), ChatTemplate::default());
        let encoder = Encoder { tokenizer: &tokenizer, chat: &chat };
        let pair = encoder.pair("ab", "xyz").unwrap();
        assert_eq!(pair.tokens.len(), 2 + 1 + 3 + 1);
        assert_eq!(pair.scored, from(3, &pair.tokens));
        assert_eq!(pair.tokens[..3], encoder.prompt("ab").unwrap());
        assert_eq!(pair.tokens.last(), Some(&0));
        let turns = [Message::user("a"), Message::assistant("b"), Message::user("c"), Message::assistant("d")];
        let talk = encoder.conversation(&turns).unwrap();
        assert_eq!(talk.scored, [2..4, 6..8]);
        assert_eq!(talk.scored_tokens(), 4);
        let text = encoder.text("abc").unwrap();
        assert_eq!(text.tokens.len(), 4);
        assert_eq!(text.scored, from(1, &text.tokens));
    }

    #[test]
    fn what_cannot_count_does_not() {
        let (tokenizer, chat) = (bytes_only(), ChatTemplate::default());
        let encoder = Encoder { tokenizer: &tokenizer, chat: &chat };
        assert!(encoder.text("").unwrap().scored.is_empty());
        assert!(encoder.conversation(&[]).unwrap().tokens.is_empty());
        assert!(Example::of(vec![], &[5]).scored.is_empty());
        assert_eq!(Example::of(vec![], &[5, 6]).scored, from(1, &[5, 6]));
    }

    #[test]
    fn a_template_that_rewrites_the_past_is_refused() {
        let tokenizer = bytes_only();
        let chat = ChatTemplate::new("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, chat: &chat };
        assert!(encoder.pair("a", "b").unwrap_err().to_string().contains("chat template"));
    }
}
