//! What a model learns from or is asked: texts → tokens through the chat template, and which of the tokens count.

use std::ops::Range;

use super::chat::{ChatTemplate, Conversation, Ending, Message};
use super::turns::Turns;
use super::{ModelError, Tokenizer, ends};

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
        self.question(&Conversation::of(vec![Message::user(prompt)]))
    }

    /// The tokens of a conversation, up to where the assistant's next answer starts.
    pub fn question(&self, chat: &Conversation) -> Result<Vec<u32>, ModelError> {
        self.tokenizer.encode(&self.chat.render(chat, Ending::AwaitsAnswer, self.tokenizer)?)
    }

    /// A prompt and its completion, which counts.
    pub fn pair(&self, prompt: &str, completion: &str) -> Result<Example, ModelError> {
        self.conversation(&Conversation::of(vec![Message::user(prompt), Message::assistant(completion)]))
    }

    /// A conversation; everything that the assistant says counts, up to the token that ends it.
    pub fn conversation(&self, chat: &Conversation) -> Result<Example, ModelError> {
        let mut example = Example { tokens: Vec::new(), scored: Vec::new() };
        for piece in self.pieces(chat)? {
            let (tokens, scored) = match piece.scored {
                0 => (self.tokenizer.encode(&piece.text)?, 0),
                end if end < piece.text.len() => self.tokenizer.encode_to(&piece.text, end)?,
                _ => {
                    let tokens = self.tokenizer.encode(&piece.text)?;
                    let all = tokens.len();
                    (tokens, all)
                }
            };
            let start = example.tokens.len();
            example.tokens.extend(tokens);
            let scored = start.max(1)..start + scored;
            if !scored.is_empty() {
                example.scored.push(scored);
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
    pub fn pieces(&self, chat: &Conversation) -> Result<Vec<Piece>, ModelError> {
        match self.growing(chat)? {
            Some(pieces) => Ok(pieces),
            None => Turns { encoder: self, chat, end: self.turn_end()? }.pieces(),
        }
    }

    /// Most templates: a longer conversation begins as a shorter one. None of another one.
    fn growing(&self, chat: &Conversation) -> Result<Option<Vec<Piece>>, ModelError> {
        let (mut pieces, mut done) = (Vec::new(), String::new());
        let end = self.turn_end()?;
        let mut advance = |text: String, counts: bool| {
            let Some(new) = text.strip_prefix(done.as_str()) else { return false };
            if !new.is_empty() {
                let scored = if counts { self.closing(new, end.as_deref()) } else { 0 };
                pieces.push(Piece { text: new.to_string(), scored });
            }
            done = text;
            true
        };
        let render = |count: usize, ending| self.chat.render(&chat.first(count), ending, self.tokenizer);
        let whole = render(chat.messages.len(), Ending::Complete)?;
        for (i, message) in chat.messages.iter().enumerate() {
            if !message.is_assistant() {
                continue;
            }
            // A template may refuse a conversation that it does not know the end of.
            let Ok(question) = render(i, Ending::AwaitsAnswer) else { return Ok(None) };
            let answered = if i + 1 == chat.messages.len() { Ok(whole.clone()) } else { render(i + 1, Ending::Complete) };
            let Ok(answered) = answered else { return Ok(None) };
            if !advance(question, false) || !advance(answered, true) {
                return Ok(None);
            }
        }
        let goes_on = chat.messages.last().is_some_and(|message| !message.is_assistant());
        Ok((!goes_on || advance(whole, false)).then_some(pieces))
    }

    /// The text of the token that closes an assistant's turn.
    pub(super) fn turn_end(&self) -> Result<Option<String>, ModelError> {
        Ok(ends::turn_end(*self)?.map(|special| special.text))
    }

    /// Where the token ends that closes an answer, in the answer and all that the template writes behind it: of the special tokens at the end the first that is `turn_end`,
    /// or else the first. The whole, if no special token closes it.
    pub(super) fn closing(&self, answer: &str, turn_end: Option<&str>) -> usize {
        let mut rest = answer.trim_end();
        let (mut first, mut known) = (None, None);
        while let Some(before) = self.tokenizer.special_ends(rest) {
            first = Some(rest.len());
            if turn_end.is_some() && rest.get(before.len()..) == turn_end {
                known = first;
            }
            rest = before.trim_end();
        }
        known.or(first).unwrap_or(answer.len())
    }
}

/// A part of a conversation's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    /// The loss is taken on so many of its bytes, from its start on.
    pub scored: usize,
}

fn from(start: usize, tokens: &[u32]) -> Vec<Range<usize>> {
    std::iter::once(start..tokens.len()).filter(|range| !range.is_empty()).collect()
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
        let talk = encoder.conversation(&Conversation::of(turns.to_vec())).unwrap();
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
        assert!(encoder.conversation(&Conversation::default()).unwrap().tokens.is_empty());
        assert!(Example::of(vec![], &[5]).scored.is_empty());
        assert_eq!(Example::of(vec![], &[5, 6]).scored, from(1, &[5, 6]));
    }
}
