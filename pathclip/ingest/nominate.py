"""From posts, rows and faults to candidates with captions: the stages read, select and caption."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.collect import Collected
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.rejects import Rejects
from pathclip.ingest.selection import is_listed, listed_ids, without_posts
from pathclip.ingest.tables import read_rows
from pathclip.ingest.whole_threads import whole_threads
from pathclip.pairs import (
    Caption,
    Drop,
    Threads,
    last_edits,
    own_caption,
    picture_captions,
    rank_continuations,
    rank_replies,
    reply_caption,
    select,
)
from pathclip.tweets import Media, Tweet, canonical, clean

__all__ = ["Nominated", "nominate"]


class Nominated:
    """The candidates that go on, in a fixed order, and what was counted on the way.

    Attributes:
        candidates: Sorted by id: all with a picture, and the replies that may caption one.
        posts: Posts, each counted once.
        repeated: Further records of posts already counted.
    """

    def __init__(self, candidates: list[Candidate], posts: int, repeated: int) -> None:
        self.candidates = sorted(candidates, key=lambda c: c.id)
        assert len({c.id for c in candidates}) == len(candidates), "two candidates share an id"
        self.posts = posts
        self.repeated = repeated


def nominate(collected: Collected, config: IngestConfig, rejects: Rejects | None = None) -> Nominated:
    """Make the candidates and give each its captions or the reason why it has none.

    Every post, row and fault stands behind at least one. Those that end here for good, posts without pictures
    above all, go to ``rejects`` at once, or nowhere: what is held grows with the pictures.
    """
    over = rejects.add if rejects is not None else _forget
    for fault in _faults(collected):
        over(fault)
    candidates = list(_rows(collected))
    ids = None if config.ids is None else dict.fromkeys(listed_ids(config.ids))
    count = repeated = 0
    read: set[str] = set()
    for portion in whole_threads(collected.files("posts"), collected.parts / "threads"):
        source = (post for post in portion if config.collect.referenced or not post.is_referenced)
        posts, newest, again = last_edits(source)
        count, repeated = count + len(posts), repeated + again
        if ids is not None:
            read.update(i for post in posts.values() for i in (post.id, *post.edit_history) if i in ids)
        captioning: set[str] = set()
        for candidate in _posts(posts, newest, collected, config, ids, captioning):
            is_over = candidate.media_key is None and candidate.tweet_id not in captioning
            over(candidate) if is_over else candidates.append(candidate)
    if config.ids is not None and ids is not None:
        for candidate in without_posts(config.ids, ids, read, collected.gone):
            over(candidate)
    return Nominated(candidates, count, repeated)


def _forget(candidate: Candidate) -> None:
    """For who only wants to know what is left."""


def _faults(collected: Collected) -> Iterator[Candidate]:
    for row in read_rows(collected.files("faults")):
        yield Candidate(f"l:{row['source']}", row["source"], drop=Drop(row["code"], row["detail"]))


def _rows(collected: Collected) -> Iterator[Candidate]:
    """One candidate per row; of rows that name one picture the first holds it."""
    by_image: dict[tuple[str, object], list[Candidate]] = defaultdict(list)
    for row, place in collected.rows():
        image = row.image if isinstance(place, Drop) else place[1]
        text = clean(row.caption, hashtags="unwrap")
        candidate = Candidate(
            id="",
            source=row.source,
            source_key=f"t:{image}",
            media_key=image,
            case=row.group,
            given_split=row.split,
            captions=(Caption(text, "table"),) if text else (),
        )
        if isinstance(place, Drop):
            candidate.reject(place)
        elif not text:
            candidate.reject(Drop("no_caption", "nothing is left of the caption"))
        else:
            candidate.place = place
        by_image[image, candidate.place].append(candidate)
    numbers: Counter[str] = Counter()
    for (image, _), group in sorted(by_image.items(), key=lambda item: str(item[0])):
        yield from _merged(image, group, numbers)


def _merged(image: str, rows: list[Candidate], numbers: Counter[str]) -> Iterator[Candidate]:
    """The first row by split, caption and group holds the picture; the others' texts join its captions."""
    order = {"test": 0, "val": 1, "train": 2, None: 3}
    rows.sort(
        key=lambda c: (c.drop is not None, order[c.given_split], [x.text for x in c.captions], c.case or "")
    )
    first = rows[0]
    for row in rows:
        row.id = f"t:{image}#{numbers[image]}"
        numbers[image] += 1
        if row is not first and row.alive and first.alive:
            first.captions += tuple(x for x in row.captions if x.text not in {y.text for y in first.captions})
            row.reject(Drop("used_as_caption", f"captions {first.source_key}"))
    yield from rows


def _posts(
    posts: dict[str, Tweet],
    newest: dict[str, str],
    collected: Collected,
    config: IngestConfig,
    ids: Collection[str] | None,
    captioning: set[str],
) -> Iterator[Candidate]:
    """Candidates of the posts, by id; ``captioning`` gets the replies that are captions before the first."""
    threads = Threads(posts, newest)
    verdicts: dict[str, Drop | None] = {}
    for post in posts.values():
        if ids is not None and not is_listed(post, ids):
            verdicts[post.id] = Drop("not_listed")
        elif post.id in newest:
            verdicts[post.id] = Drop("superseded_edit", f"edited as {newest[post.id]}")
        else:
            verdicts[post.id] = select(post, config.select, config.language)
    answers, unused = _replies(posts, verdicts, threads, config)
    captioning.update(x.tweet_id for captions in answers.values() for x in captions if x.tweet_id)
    for _, post in sorted(posts.items()):
        verdict = verdicts[post.id]
        if not post.media:
            candidate = _candidate(post, None, threads)
            candidate.reject(verdict or unused.get(post.id) or Drop("no_media"))
            yield candidate
            continue
        own = own_caption(post, config.caption, config.text) if verdict is None else verdict
        pictures = tuple(_unique(post.media))
        for number, media in enumerate(pictures):
            candidate = _candidate(post, media, threads)
            place_in_post = (number, len(pictures))
            captions = (
                verdict
                if verdict is not None
                else picture_captions(
                    post, media, own, answers.get(post.id, ()), config.caption, place_in_post
                )
            )
            if isinstance(captions, Drop):
                candidate.reject(captions)
            else:
                candidate.captions = captions
            place = collected.folders.of_post(post.id, media)
            if candidate.alive and isinstance(place, Drop):
                candidate.reject(place)
            elif not isinstance(place, Drop):
                candidate.place = place
            yield candidate


def _replies(
    posts: dict[str, Tweet], verdicts: dict[str, Drop | None], threads: Threads, config: IngestConfig
) -> tuple[dict[str, list[Caption]], dict[str, Drop]]:
    """Best replies per post with pictures, and for every text-only reply why its text is not used, if so.

    Whether a chosen reply ends as ``used_as_caption`` is known only when its picture is kept; until then it
    stands as ``no_media``.
    """
    by_likes = config.caption.reply_choice == "most_liked"
    continuing: dict[str, list[Tweet]] = defaultdict(list)
    fitting: dict[str, list[Tweet]] = defaultdict(list)
    captions: dict[str, Caption] = {}
    unused: dict[str, Drop] = {}
    for post in posts.values():
        if post.media or verdicts[post.id] is not None:
            continue
        target = threads.pictures_of(post)
        if target is None:
            continue
        caption = reply_caption(post, config.caption, config.text)
        if isinstance(caption, Drop):
            unused[post.id] = Drop("no_media", f"reply not used: {caption.detail or caption.code}")
            if caption.code == "question" and by_likes:
                fitting[target].append(post)  # OpenPath chose first and dropped questions afterwards
        elif not by_likes and threads.continues(post, target) and not _asks(posts[target], config):
            captions[post.id] = replace(caption, source="continuation")
            continuing[target].append(post)
        else:
            captions[post.id] = caption
            fitting[target].append(post)
    answers: dict[str, list[Caption]] = defaultdict(list)
    for target, posts_on in continuing.items():
        ranked = rank_continuations(posts_on)
        answers[target] += [captions[p.id] for p in ranked[: config.caption.max_continuations]]
        for number, post in enumerate(ranked):
            over = number >= config.caption.max_continuations
            why = "earlier ones are enough" if over else "its picture is not kept"
            unused[post.id] = Drop("no_media", f"continuation not used: {why}")
    for target, replies in fitting.items():
        ranked = rank_replies(replies, None if by_likes else posts[target].author_id)
        chosen = ranked[: config.caption.max_replies]
        answers[target] += [captions[r.id] for r in chosen if r.id in captions]
        for number, reply in enumerate(ranked):
            if reply.id not in captions:
                continue
            why = "its picture is not kept" if number < config.caption.max_replies else "others rank higher"
            unused[reply.id] = Drop("no_media", f"reply not used: {why}")
    return answers, unused


def _asks(post: Tweet, config: IngestConfig) -> bool:
    """True where the post's own text is a question: what its author says next is the answer."""
    return own_caption(post, config.caption, config.text) == Drop("question")


def _candidate(post: Tweet, media: Media | None, threads: Threads) -> Candidate:
    key = f"x:{post.id}:{media.key}" if media else f"x:{post.id}"
    return Candidate(
        id=key,
        source=post.source,
        source_key=key,
        tweet_id=post.id,
        media_key=media.key if media else None,
        author_id=post.author_id,
        created_at=post.created_at,
        thread=threads.thread(post.id),
        hashtag=canonical(post.hashtags),
    )


def _unique(media: Iterable[Media]) -> Iterable[Media]:
    """Each attachment once, in order; of two with one key the first."""
    first: dict[str, Media] = {}
    for one in media:
        first.setdefault(one.key, one)
    return first.values()
