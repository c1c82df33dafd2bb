"""Every shipped format reads a log of the shape in which it is published. The rows are invented."""

import json
import re
import zipfile
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from sparkrec.ingest.attributes import parse_attribute_file
from sparkrec.ingest.hadoop import FileSystem
from sparkrec.ingest.readers import group_files, read_group
from sparkrec.ingest.unpack import make_readable, with_readers
from sparkrec.settings.format_files import load_format
from sparkrec.warehouse.tables import EVENTS, ITEMS_TABLE, QUARANTINE
from tests.ingest.test_ingest import rows, take_in
from tests.ingest.test_parse import parsed

EVENT = ("event_type", "user_id", "item_id", "ts", "value", "quantity", "price", "basket_id")


@dataclass(frozen=True)
class Sample:
    """Files of a log by name, what becomes of the rows, and of the files beside it.

    Attributes:
        format: The shipped format.
        files: Text, or bytes, of each file; none but the log's are read as the log.
        events: The valid rows: event type, user, item, time, and whatever else of ``EVENT`` is not null.
        refused: The reasons of the others.
        items, users: By id the attributes, in the order of the format.
    """

    format: str
    files: dict
    events: list
    refused: list = field(default_factory=list)
    items: dict = field(default_factory=dict)
    users: dict = field(default_factory=dict)


def at(text):
    return datetime.fromisoformat(text)


def lines(*rows):
    return "\n".join(rows) + "\n"


RATED = [("rating", "1", "31", at("2009-12-05T08:00:00"), 2.5), ("rating", "1", "52", at("2009-12-05T08:00:35"), 3.0)]
SAMPLES = [
    Sample(
        "ratings",
        {
            "ml/ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260000000\n1,52,3.0,1260000035\n",
            "ml/tags.csv": "userId,movieId,tag,timestamp\n1,31,slow,1260000000\n",
            "ml/links.csv": "movieId,imdbId,tmdbId\n31,0112792,9909\n",
            "ml/movies.csv": 'movieId,title,genres\n31,"Mists, The (1995)",Drama\n52,Ohne Jahr,(no genres listed)\n',
        },
        RATED,
        items={"31": ("Mists, The (1995)", 1995, "Drama"), "52": ("Ohne Jahr", None, "(no genres listed)")},
    ),
    Sample(
        "ratings",
        {
            "ratings.dat": "1::31::2.5::1260000000\n1::52::3::1260000035\n",
            "movies.dat": "31::Mists, The (1995)::Drama|War\n",
            "users.dat": "1::F::1::10::48067\n",
            "README": "?",
        },
        RATED,
        items={"31": ("Mists, The (1995)", 1995, "Drama|War")},
        users={"1": ("F", "1", "10")},
    ),
    Sample(
        "ratings",
        {
            "u.data": "1\t31\t2.5\t1260000000\n1\t52\t3\t1260000035\n",
            "u.item": ("31|Misérables, Les (1995)|01-Jan-1995||http://x/?a|" + "|".join("0" * 19) + "\n").encode(
                "latin-1"
            ),
            "u.user": "1|24|M|technician|85711\n",
            "u.genre": "unknown|0\n",
        },
        RATED,
        items={"31": ("Misérables, Les (1995)", 1995, None)},
        users={"1": ("M", "24", "technician")},
    ),
    Sample(
        "tags",
        {
            "tags.csv": 'userId,movieId,tag,timestamp\n1,31,"slow, but good",1260000000\n',
            "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260000000\n",
            "movies.csv": "movieId,title,genres\n31,Mists (1995),Drama\n",
        },
        [("tag", "1", "31", at("2009-12-05T08:00:00"))],
        items={"31": ("Mists (1995)", "Drama")},
    ),
    Sample(
        "reviews",
        {
            "reviews_Books_5.json": json.dumps(
                {
                    "reviewerID": "A1",
                    "asin": "0001",
                    "reviewerName": "N",
                    "helpful": [2, 3],
                    "reviewText": "t",
                    "overall": 5.0,
                    "summary": "s",
                    "unixReviewTime": 1252800000,
                    "reviewTime": "09 13, 2009",
                }
            ),
            "Gift_Cards.json": json.dumps(
                {
                    "overall": 1.0,
                    "verified": True,
                    "reviewTime": "09 13, 2009",
                    "reviewerID": "A2",
                    "asin": "0002",
                    "style": {"Color:": " red"},
                    "reviewText": "t",
                    "summary": "s",
                    "unixReviewTime": 1252800000,
                }
            ),
            "meta_Books.json": "{'asin': '0001', 'title': \"It's a book\", 'price': 12.99, 'imUrl': 'http://x', "
            "'related': {'also_viewed': ['2']}, 'salesRank': {'Books': 3}, 'brand': 'B', 'description': None, "
            "'categories': [['Books', 'Art']]}\n",
            "meta_Gift_Cards.json": json.dumps(
                {
                    "category": ["Gift Cards", "All"],
                    "description": ["d"],
                    "title": "Card",
                    "brand": "C",
                    "main_cat": "Gifts",
                    "price": "$25.00",
                    "asin": "0002",
                    "similar_item": None,
                }
            ),
        },
        [("review", "A1", "0001", at("2009-09-13"), 5.0), ("review", "A2", "0002", at("2009-09-13"), 1.0)],
        items={"0001": ("It's a book", None, "B", "Books", 12.99), "0002": ("Card", '["d"]', "C", "Gifts", 25.0)},
    ),
    Sample(
        "reviews_2023",
        {
            "Baby.jsonl": json.dumps(
                {
                    "rating": 4.0,
                    "title": "s",
                    "text": "t",
                    "images": [],
                    "asin": "B1",
                    "parent_asin": "B0",
                    "user_id": "AE",
                    "timestamp": 1609459200500,
                    "helpful_vote": 0,
                    "verified_purchase": True,
                }
            ),
            "Toys.csv": "user_id,parent_asin,rating,timestamp\nAE,B2,5.0,1609459200000\n",
            "meta_Baby.jsonl": json.dumps(
                {
                    "main_category": None,
                    "title": "Cup",
                    "average_rating": 4.5,
                    "rating_number": 12,
                    "features": [],
                    "description": [],
                    "price": 9.5,
                    "images": [],
                    "videos": [],
                    "store": "S",
                    "categories": ["Baby", "Cups"],
                    "details": {},
                    "parent_asin": "B0",
                    "bought_together": None,
                }
            ),
        },
        [
            ("review", "AE", "B0", at("2021-01-01T00:00:00.500"), 4.0),
            ("review", "AE", "B2", at("2021-01-01"), 5.0),
        ],
        items={"B0": ("Cup", "[]", "S", "Baby", 9.5)},
    ),
    Sample(
        "yoochoose",
        {
            "yoochoose-clicks.dat": "1,2014-04-08T10:00:09.277Z,2100,0\n1,2014-04-08T10:04:09.068Z,2101,S\n",
            "yoochoose-buys.dat": "1,2014-04-08T10:09:00.000Z,2101,990,1\n2,2014-04-06T18:00:58.325Z,21,0,0\n",
            "dataset-README.txt": "?",
        },
        [
            ("click", None, "2100", at("2014-04-08T10:00:09.277"), "1"),
            ("click", None, "2101", at("2014-04-08T10:04:09.068"), "1"),
            ("purchase", None, "2101", at("2014-04-08T10:09:00"), 1.0, 990.0, "1"),
            ("purchase", None, "21", at("2014-04-06T18:00:58.325"), 0.0, 0.0, "2"),
        ],
    ),
    Sample(
        "retailrocket",
        {
            "events.csv": lines(
                "timestamp,visitorid,event,itemid,transactionid",
                "1433200000117,77,view,88,",
                "1433200000117,77,addtocart,88,",
                "1433200100276,78,transaction,89,41",
            ),
            "item_properties_part1.csv": "timestamp,itemid,property,value\n1435460400000,460429,categoryid,1338\n",
            "category_tree.csv": "categoryid,parentid\n1016,213\n",
        },
        [
            ("view", "77", "88", at("2015-06-01T23:06:40.117")),
            ("addtocart", "77", "88", at("2015-06-01T23:06:40.117")),
            ("transaction", "78", "89", at("2015-06-01T23:08:20.276"), "41"),
        ],
    ),
    Sample(
        "hm",
        {
            "transactions_train.csv": lines(
                '"t_dat","customer_id","article_id","price","sales_channel_id"',
                "2018-09-20,00ab,0100200300,0.0253,2",
            ),
            "articles.csv": lines(
                "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
                "colour_group_name,department_name,section_name,detail_desc",
                '0100200300,100200,"Top, long",253,Vest top,Garment,Black,Jersey,Basics,"Soft,\nlong"',
            ),
            "customers.csv": lines(
                "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code",
                "00ab,,,ACTIVE,NONE,24.0,6e",
            ),
        },
        [("purchase", "00ab", "0100200300", at("2018-09-20"), 0.0253)],
        items={"0100200300": ("Top, long", "Soft,\nlong", "Vest top", "Jersey", "Black", "Basics")},
        users={"00ab": (24.0, "ACTIVE", "NONE")},
    ),
    Sample(
        "lastfm_1k",
        {
            "userid-timestamp-artid-artname-traid-traname.tsv": lines(
                'user_000007\t2009-03-04T21:00:07Z\taa11\tThe "Q" Four\t\tNight One',
                "user_000007\t2009-03-04T20:57:10Z\tbb22\tQuiet Men\tcc33\tRain, Rain",
            ),
            "userid-profile.tsv": lines(
                "#id\tgender\tage\tcountry\tregistered", "user_000007\tm\t\tJapan\tAug 13, 2006"
            ),
        },
        [
            ("listen", "user_000007", 'The "Q" Four – Night One', at("2009-03-04T21:00:07")),
            ("listen", "user_000007", "Quiet Men – Rain, Rain", at("2009-03-04T20:57:10")),
        ],
        users={"user_000007": ("m", None, "Japan")},
    ),
    Sample(
        "taobao",
        {"UserBehavior.csv": "1,500,60,pv,1511500000\n1,501,61,buy,1511500100\n2,3,4,fav,-1\n"},
        [
            ("pv", "1", "500", at("2017-11-24T05:06:40")),
            ("buy", "1", "501", at("2017-11-24T05:08:20")),
        ],
        ["ts before 1990-01-01 (wrong unit?)"],
    ),
    Sample(
        "dunnhumby",
        {
            "transaction_data.csv": lines(
                "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,"
                "COUPON_DISC,COUPON_MATCH_DISC",
                "12,9001,1,100,1,1.39,364,-0.6,1631,1,0,0",
                "12,9001,60,101,2,0.82,364,0,5,1,0,0",
                "12,9001,1,102,0,0,364,-0.3,1631,1,0,0",
            ),
            "product.csv": lines(
                "PRODUCT_ID,MANUFACTURER,DEPARTMENT,BRAND,COMMODITY_DESC,SUB_COMMODITY_DESC,CURR_SIZE_OF_PRODUCT",
                "100,69,PRODUCE,Private,PLUMS,PLUMS RED,5 LB",
            ),
            "hh_demographic.csv": lines(
                "AGE_DESC,MARITAL_STATUS_CODE,INCOME_DESC,HOMEOWNER_DESC,HH_COMP_DESC,HOUSEHOLD_SIZE_DESC,"
                "KID_CATEGORY_DESC,household_key",
                "65+,A,35-49K,Homeowner,2 Adults No Kids,2,None/Unknown,12",
            ),
            "campaign_desc.csv": "DESCRIPTION,CAMPAIGN,START_DAY,END_DAY\nTypeB,24,659,719\n",
        },
        [
            ("purchase", "12", "100", at("2016-01-01T16:31"), 1.39, 1.0, "9001"),
            ("purchase", "12", "101", at("2016-02-29T00:05"), 0.82, 2.0, "9001"),
        ],
        ["quantity not above 0"],
        items={"100": ("PLUMS RED", "PRODUCE", "Private", "PLUMS")},
        users={"12": ("65+", "35-49K", "2")},
    ),
]


def attributes(spark, folder, declared, fmt):
    """The attributes of the files that a format declares beside its log, by id."""
    fs = FileSystem(spark)
    files = [pair for pair in with_readers(fs, fs.list_files(str(folder)), declared.readers) if pair[1]]
    files = make_readable(fs, files, declared.readers, str(folder.parent / "_beside"))
    names = [*declared.id.columns, *(c for a in declared.attributes for c in a.columns)]
    raws = [
        read_group(spark, g, names, [declared.id.columns], "") for g in group_files(fs, files, [declared.id.columns])
    ]
    found = [
        parse_attribute_file(raw, declared, fmt.nulls, fmt.id_nulls).where(F.col("reason").isNull()) for raw in raws
    ]
    return {r["id"]: tuple(r[a.name] for a in declared.attributes) for valid in found for r in valid.collect()}


@pytest.mark.integration
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.format} {next(iter(s.files))}")
def test_a_published_log_is_taken_in_whole(spark, tmp_path, sample):
    fmt = load_format(sample.format)
    for name, content in sample.files.items():
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = parsed(spark, tmp_path / "log", fmt)
    valid = [r for r in read if not r["reason"]]
    found = [(*(r[n] for n in EVENT[:4]), *(r[n] for n in EVENT[4:] if r[n] is not None)) for r in valid]
    assert sorted(found, key=repr) == sorted(sample.events, key=repr)
    assert [r["reason"] for r in read if r["reason"]] == sample.refused
    for declared, expected in ((fmt.items_file, sample.items), (fmt.users_file, sample.users)):
        if expected:
            assert attributes(spark, tmp_path / "log", declared, fmt) == expected


GERMAN = '''# Export
# vom 01.01.2025
Bestellnr;Kunde;Artikelnr;Bezeichnung;Menge;Preis;Datum
1001;K1;a-1;"Türgriff ""Größe 2""";2;12,99;31.12.2024 23:59
1001;K1;B-2;Tisch;1;1.299,00;31.12.2024 23:59:30
R1002;K1;B-2;Tisch;-1;1299;01.01.2025 00:15
1003;;B-2;Tisch;1;12.99;01.01.2025 10:00
1003;;B-2;Tisch;1;€ 5;31.02.2025 10:00
'''


@pytest.mark.integration
def test_the_german_shop_of_the_documentation(spark, tmp_path):
    """Packed and whole: every row is accounted for, and the archive is the source."""
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    (tmp_path / "shop.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    (tmp_path / "logs").mkdir()
    with zipfile.ZipFile(tmp_path / "logs" / "export.zip", "w") as archive:
        archive.writestr("shop/bestellungen-2024.csv", GERMAN.replace("\n", "\r\n").encode("cp1252"))
        archive.writestr("shop/liesmich.txt", "?")
    warehouse = tmp_path / "w"
    result = take_in(spark, tmp_path / "logs", warehouse, date(2024, 12, 31), fmt=str(tmp_path / "shop.yaml"))
    assert (result.rows_read, result.rows_kept, result.rows_quarantined, result.rows_duplicate) == (5, 3, 2, 0)
    assert result.reasons == {"bad price": 1, "bad ts": 1}
    found = rows(warehouse, EVENTS, "ts", "event_type", "item_id", "quantity", "price", "source")
    assert found == sorted(
        [
            (at("2024-12-31T22:59"), "purchase", "A-1", 2.0, 12.99, "export.zip"),
            (at("2024-12-31T22:59:30"), "purchase", "B-2", 1.0, 1299.0, "export.zip"),
            (at("2024-12-31T23:15"), "return", "B-2", -1.0, 1299.0, "export.zip"),
        ]
    )
    assert rows(warehouse, ITEMS_TABLE, "id", "title", "price") == [
        ("A-1", 'Türgriff "Größe 2"', 12.99), ("B-2", "Tisch", 1299.0)
    ]  # fmt: skip
    assert rows(warehouse, QUARANTINE, "raw")[0] == ("1003;;B-2;Tisch;1;12.99;01.01.2025 10:00",)
    assert not (warehouse / "_staging").exists()
