"""Bytes to posts: readers for every payload shape, told apart by content, and the cleaning of their text."""

from pathclip.tweets.archive import archive_files, archive_media, archive_sides
from pathclip.tweets.fields import basename
from pathclip.tweets.halves import halves
from pathclip.tweets.hashtags import OPENPATH, canonical
from pathclip.tweets.readers import Chunk, Item, chunks, read
from pathclip.tweets.sniff import Shape, sniff
from pathclip.tweets.text import HashtagPolicy, clean
from pathclip.tweets.tweet import Fault, Media, Row, Tweet, TweetKind

__all__ = [
    "OPENPATH",
    "Chunk",
    "Fault",
    "HashtagPolicy",
    "Item",
    "Media",
    "Row",
    "Shape",
    "Tweet",
    "TweetKind",
    "archive_files",
    "archive_media",
    "archive_sides",
    "basename",
    "canonical",
    "chunks",
    "clean",
    "halves",
    "read",
    "sniff",
]
