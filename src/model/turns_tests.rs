//! Two turns in templates that rewrite the past.

use crate::model::chat::{ChatTemplate, Conversation, Message};
use crate::model::example::Encoder;
use crate::model::tokenizer::tests::bytes_only;

fn talk() -> Conversation {
    Conversation::of(vec![
        Message::user("q1"),
        Message::assistant("<think>\nt1\n</think>\n\na1"),
        Message::user("q2"),
        Message::assistant(" a2 "),
    ])
}

/// What is taught.
fn taught(template: &str, chat: &Conversation) -> Vec<String> {
    let (tokenizer, chat_template) = (bytes_only(), ChatTemplate::new(template).unwrap());
    let encoder = Encoder { tokenizer: &tokenizer, chat: &chat_template };
    let pieces = encoder.pieces(chat).unwrap();
    let whole: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    assert_eq!(whole, chat_template.render(chat, crate::model::chat::Ending::Complete, &tokenizer).unwrap());
    pieces.iter().filter(|piece| piece.scored > 0).map(|piece| piece.text[..piece.scored].to_string()).collect()
}

const HEAD: &str = "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}</u>\n{% else %}";

#[test]
fn thoughts_of_earlier_turns_are_left_out() {
    let qwen = HEAD.to_string()
        + "{% set c = m.content %}{% if '</think>' in c and not loop.last %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}\
           <a>\n{{ c }}<|endoftext|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<a>\n{% endif %}";
    assert_eq!(taught(&qwen, &talk()), ["a1<|endoftext|>", " a2 <|endoftext|>"]);
    let thinks = Conversation::of(talk().messages.into_iter().rev().skip(2).rev().collect());
    assert_eq!(taught(&qwen, &thinks), ["<think>\nt1\n</think>\n\na1<|endoftext|>"]);
    // It thinks, if only to say that it does not.
    let empty = qwen.replace("<a>\n{{ c }}", "<a>\n{% if loop.last and '<think>' not in c %}<think>\n\n</think>\n\n{% endif %}{{ c }}");
    assert_eq!(taught(&empty, &talk()), ["a1<|endoftext|>", "<think>\n\n</think>\n\n a2 <|endoftext|>"]);
}

#[test]
fn a_token_at_the_end_of_all_is_not_the_answers() {
    let phi = HEAD.to_string()
        + "<a>\n{{ m.content | trim }}<|endoftext|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<a>\n{% else %}<|endoftext|>{% endif %}";
    assert_eq!(taught(&phi, &talk()), ["<think>\nt1\n</think>\n\na1<|endoftext|>", "a2<|endoftext|>"]);
}

#[test]
fn a_prompt_that_opens_thoughts_ends_where_both_agree() {
    let distill = HEAD.to_string()
        + "<a>{{ m.content.split('</think>')[-1] }}<|endoftext|>{% endif %}{% endfor %}{% if add_generation_prompt %}<a><think>\n{% endif %}";
    let taught = taught(&distill, &talk());
    assert_eq!(taught, ["\n\na1<|endoftext|>", " a2 <|endoftext|>"]);
}

#[test]
fn a_system_prompt_may_stand_before_the_last_question() {
    let nemo = "{% for m in messages %}{% if m.role == 'user' %}[INST]{% if loop.index0 >= messages | length - 2 %}s\n\n{% endif %}\
                {{ m.content }}[/INST]{% else %}{{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}";
    assert_eq!(taught(nemo, &talk()), ["<think>\nt1\n</think>\n\na1<|endoftext|>", "a2<|endoftext|>"]);
}

#[test]
fn the_scored_tokens_are_the_answers() {
    let phi = HEAD.to_string() + "<a>{{ m.content }}<|endoftext|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
    let (tokenizer, chat) = (bytes_only(), ChatTemplate::new(&phi).unwrap());
    let example = Encoder { tokenizer: &tokenizer, chat: &chat }.pair("q", "yes").unwrap();
    let scored: Vec<u32> = example.scored.iter().flat_map(|range| example.tokens[range.clone()].to_vec()).collect();
    assert_eq!(scored, tokenizer.encode("yes<|endoftext|>").unwrap());
    assert_eq!(example.tokens.last(), tokenizer.encode("\n").unwrap().first());
}

#[test]
fn an_answer_that_is_not_shown_is_refused() {
    let last = "{{ messages | length }}{% for m in messages[-1:] %}{{ m.content }}{% endfor %}";
    let (tokenizer, chat) = (bytes_only(), ChatTemplate::new(last).unwrap());
    let error = Encoder { tokenizer: &tokenizer, chat: &chat }.conversation(&talk()).unwrap_err().to_string();
    assert!(error.contains("answer 2 is not in its text"), "{error}");
    let twice = "{{ messages | length }}{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}";
    let chat = ChatTemplate::new(twice).unwrap();
    let error = Encoder { tokenizer: &tokenizer, chat: &chat }.conversation(&talk()).unwrap_err().to_string();
    assert!(error.contains("more than once"), "{error}");
}
