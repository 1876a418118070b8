"""Which posts may give pictures and captions at all: retweets, sensitive and foreign posts may not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pathclip.core.config import Config
from pathclip.pairs.pair import Drop
from pathclip.tweets.language import guess, is_language_known, latin_share, num_letters, sounds_foreign
from pathclip.tweets.text import clean
from pathclip.tweets.tweet import Tweet

__all__ = ["LanguageConfig", "SelectConfig", "select"]


class SelectConfig(Config):
    """Which posts are taken."""

    retweets: Literal["drop", "keep"] = Field(
        default="drop", description="retweets repeat a post and cut its text"
    )
    sensitive: Literal["drop", "keep"] = Field(
        default="drop", description="posts the platform flags; much gross and surgical pathology is flagged"
    )
    withheld: Literal["drop", "keep"] = Field(default="drop", description="posts withheld in some country")
    bots: Literal["drop", "keep"] = Field(
        default="keep", description="posts of accounts whose name ends in bot"
    )


class LanguageConfig(Config):
    """Which languages are taken, and who says which a text is in. Other scripts go whoever says so."""

    detector: Literal["platform", "script", "py3langid"] = Field(
        default="platform",
        description="platform: its code, else function words of other languages; script: function words only "
        "(for English); py3langid: that package (extra `language`), whatever the platform says",
    )
    languages: tuple[str, ...] = Field(default=("en",), min_length=1, description="platform codes to keep")
    unknown: Literal["keep", "drop"] = Field(
        default="keep", description="posts without a code whose script and function words do not tell either"
    )
    min_latin_share: float = Field(
        default=0.5, ge=0, le=1, description="share of Latin letters a text must have"
    )
    min_letters: int = Field(
        default=8, ge=0, description="below this many letters script and words are not judged"
    )

    @model_validator(mode="after")
    def _script_knows_english(self) -> LanguageConfig:
        if self.detector == "script" and self.languages != ("en",):
            raise ValueError("detector = script tells English from others; other languages need another one")
        return self


def select(tweet: Tweet, config: SelectConfig, language: LanguageConfig) -> Drop | None:
    """None if the post may be used, else why not."""
    if tweet.kind == "retweet" and config.retweets == "drop":
        return Drop("retweet")
    if tweet.is_withheld and config.withheld == "drop":
        return Drop("withheld")
    if tweet.sensitive and config.sensitive == "drop":
        return Drop("sensitive")
    if tweet.is_bot and config.bots == "drop":
        return Drop("bot")
    return _language(tweet, language)


def _language(tweet: Tweet, config: LanguageConfig) -> Drop | None:
    known = config.detector == "platform" and is_language_known(tweet.lang)
    if known and (tweet.lang or "").lower().partition("-")[0] not in config.languages:
        return Drop("language", f"the platform says {tweet.lang}")
    text = clean(tweet.text, hashtags="strip")
    if latin_share(text) == 0 < config.min_latin_share and num_letters(text) > 2:
        return Drop("language", "no Latin letters")
    if num_letters(text) < config.min_letters:
        return None if known or config.unknown == "keep" else Drop("language", "too short to tell")
    share = latin_share(text)
    if share < config.min_latin_share:
        return Drop("language", f"{share:.0%} Latin letters")
    if config.detector == "py3langid":
        return _guessed(text, config)
    if not known and config.unknown == "drop" and config.detector == "platform":
        return Drop("language", "the platform gives none")
    if not known and sounds_foreign(text):
        return Drop("language", "function words of another language")
    return None


def _guessed(text: str, config: LanguageConfig) -> Drop | None:
    language = guess(text, config.languages)
    if language is None:
        return None if config.unknown == "keep" else Drop("language", "no words to tell by")
    return None if language in config.languages else Drop("language", f"py3langid says {language}")
