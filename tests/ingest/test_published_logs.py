"""Shipped formats read logs as they are published: invented rows of the published shapes."""

import json
from datetime import datetime

import pytest

from sparkrec.settings.format_files import load_format
from tests.ingest.reading import parsed
from tests.ingest.test_rows import table, take_in


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# Format → files, columns of events, and what they must be: a row's reason, then its columns.
SAMPLES = {
    "otto": (
        {
            "otto-recsys-train.jsonl": lines(
                {
                    "session": 12,
                    "events": [
                        {"aid": 59625, "ts": 1661724000278, "type": "clicks"},
                        {"aid": 59626, "ts": 1661724000278, "type": "carts"},
                    ],
                },
                {"session": 13, "events": [{"aid": 59625, "ts": 1661724058352, "type": "orders"}]},
            )
        },
        ("log_session_id", "item_id", "event_type", "event_order", "ts"),
        [
            (None, "12", "59625", "clicks", 0, datetime(2022, 8, 28, 22, 0, 0, 278000)),
            (None, "12", "59626", "carts", 1, datetime(2022, 8, 28, 22, 0, 0, 278000)),
            (None, "13", "59625", "orders", 0, datetime(2022, 8, 28, 22, 0, 58, 352000)),
        ],
    ),
    "diginetica": (
        {
            "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
            "1;NA;31331;1031018;2016-05-09\n",
            "train-purchases.csv": "sessionId;userId;timeframe;eventdate;ordernumber;itemId\n"
            "150;18278;17100868;2016-05-06;16421;25911\n",
            "train-clicks.csv": "queryId;timeframe;itemId\n1;16100;24857\n",
            "products.csv": "itemId;pricelog2;product.name.tokens\n1;10;4875,776,56689\n",
        },
        ("user_id", "item_id", "event_type", "log_session_id", "basket_id", "ts"),
        [
            (None, None, "31331", "view", "1", None, datetime(2016, 5, 9, 0, 17, 11, 18000)),
            (None, None, "81766", "view", "1", None, datetime(2016, 5, 9, 0, 8, 46, 309000)),
            (None, "18278", "25911", "purchase", "150", "16421", datetime(2016, 5, 6, 4, 45, 0, 868000)),
        ],
    ),
    "mind": (
        {
            "behaviors.tsv": "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
            "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0\n"
            "3\tU91836\t11/12/2019 6:11:30 PM\tN20678\t\n",
            "news.tsv": 'N55528\tlifestyle\troyals\tThe "Brands" Queen\tShop\thttps://x\t[]\t[]\n',
        },
        ("user_id", "item_id", "event_type", "event_order", "ts"),
        [
            (None, "U13740", "N35729", "impression", 1, datetime(2019, 11, 11, 9, 5, 58)),
            (None, "U13740", "N55689", "click", 0, datetime(2019, 11, 11, 9, 5, 58)),
            (None, "U91836", "N20678", "impression", 0, datetime(2019, 11, 12, 18, 11, 30)),
            ("empty impressions", None, None, "impression", None, None),
        ],
    ),
    "yelp": (
        {
            "yelp_academic_dataset_review.json": lines(
                {
                    "review_id": "KU_O5udG6zpxOg-VcAEodg", "user_id": "mh_-eMZ6K5RLWhZyISBhwA",
                    "business_id": "XQfwVwDr-v0ZS3_CbbE5Xw", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0,
                    "text": "If you decide", "date": "2018-07-07 22:09:11",
                },
                {"review_id": "b", "user_id": "u", "business_id": "i", "stars": 5, "text": "", "date": "2011-01-26"},
            ),
            "yelp_academic_dataset_business.json": lines({"business_id": "i", "name": "Shop", "categories": "A, B"}),
        },
        ("user_id", "item_id", "event_id", "value", "text", "ts"),
        [
            (None, "mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", "KU_O5udG6zpxOg-VcAEodg", 3.0, "If you decide",
             datetime(2018, 7, 7, 22, 9, 11)),
            (None, "u", "i", "b", 5.0, None, datetime(2011, 1, 26)),
        ],
    ),
    "steam": (
        {
            "steam_reviews.json": "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41,"
            " u'product_id': u'725280', u'page_order': 0, u'date': u'2017-12-17', u'text': u'This \"isn\\'t\" bad',"
            " u'early_access': False, u'page': 1}\n",
            "steam_games.json": "{u'app_name': u'Lost', u'id': u'761140', u'price': 4.99}\n",
        },
        ("user_id", "item_id", "value", "text", "ts"),
        [(None, "Chaos Syren", "725280", 0.1, 'This "isn\'t" bad', datetime(2017, 12, 17))],
    ),
    "kuairec": (
        {
            "big_matrix.csv": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965215790926\n"
            "0,9598,1366,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,0.12436271\n",
            "small_matrix.csv": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "14,148,4381,6067,,,,0.722103\n",
            "user_features.csv": "user_id,user_active_degree\n0,high_active\n",
        },
        ("user_id", "item_id", "event_type", "ts"),
        [
            (None, "0", "3649", "view", datetime(2020, 7, 4, 16, 8, 23, 438000)),
            (None, "0", "9598", "skip", datetime(2020, 7, 4, 16, 13, 41, 297000)),
            ("missing ts", None, None, "view", None),
        ],
    ),
    "ga4": (
        {
            "events_20210131.json": lines(
                {"event_name": "page_view", "event_timestamp": "1612069510766593", "user_pseudo_id": "1.2"},
                {
                    "event_name": "view_item_list", "event_timestamp": "1612069510766593", "user_pseudo_id": "1.2",
                    "items": [{"item_id": "G1"}, {"item_id": "(not set)"}],
                },
                {
                    "event_name": "purchase", "event_timestamp": "1612069512000000", "user_id": "u",
                    "user_pseudo_id": "1.2", "ecommerce": {"transaction_id": "T1"}, "geo": {"country": "France"},
                    "items": [
                        {"item_id": "G1", "item_name": "Cap", "price": 12.5, "quantity": "2"},
                        {"item_id": "G2", "item_name": "Mug", "price": 5, "quantity": "1"},
                    ],
                },
            )
        },
        ("user_id", "item_id", "event_type", "event_order", "basket_id", "price", "quantity"),
        [
            (None, "1.2", "G1", "view_item_list", 0, None, None, None),
            (None, "u", "G1", "purchase", 0, "T1", 12.5, 2.0),
            (None, "u", "G2", "purchase", 1, "T1", 5.0, 1.0),
            ("left out: page_view", None, None, "page_view", None, None, None, None),
            ("left out: view_item_list", None, None, "view_item_list", None, None, None, None),
        ],
    ),
    "segment": (
        {
            "1421281281936.gz.json": lines(
                {
                    "type": "track", "event": "Product Viewed", "userId": None, "anonymousId": "a1", "messageId": "m1",
                    "timestamp": "2015-02-23T22:28:55.387Z",
                    "properties": {"product_id": "507f1f77", "name": "Cap", "price": 18.99},
                },
                {
                    "type": "track", "event": "Order Completed", "userId": "97", "anonymousId": "a1", "messageId": "m2",
                    "timestamp": "2015-02-23T22:30:00Z",
                    "properties": {
                        "order_id": "50314b8e",
                        "products": [{"product_id": "507f1f77", "price": 19, "quantity": 2}, {"sku": "46493-32"}],
                    },
                },
                {"type": "page", "anonymousId": "a1", "messageId": "m3", "timestamp": "2015-02-23T22:28:50Z",
                 "properties": {"path": "/"}},
            )
        },
        ("user_id", "item_id", "event_type", "event_id", "basket_id", "price", "quantity", "event_order"),
        [
            (None, "97", "46493-32", "Order Completed", "m2#1", "50314b8e", None, None, 1),
            (None, "97", "507f1f77", "Order Completed", "m2#0", "50314b8e", 19.0, 2.0, 0),
            (None, "a1", "507f1f77", "Product Viewed", "m1", None, 18.99, None, None),
            ("left out: page", None, None, "page", None, None, None, None, None),
        ],
    ),
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("name", SAMPLES)
def test_a_published_log_is_read_with_its_format(spark, tmp_path, name):
    files, columns, expected = SAMPLES[name]
    folder = tmp_path / "log"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    rows = parsed(spark, folder, load_format(name))
    found = [(row["reason"], *(row[column] for column in columns)) for row in rows]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


@pytest.mark.integration
def test_lines_of_instacart_have_the_time_of_their_orders(spark, tmp_path):
    files = {
        "order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n2,33120,1,1\n2,28985,2,1\n"
        "3,9327,1,0\n9,1,1,0\n",
        "order_products__train.csv": "order_id,product_id,add_to_cart_order,reordered\n7,33120,1,1\n",
        "orders.csv": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
        "2,1,prior,1,2,08,\n3,1,prior,2,3,07,15.0\n7,1,train,3,3,22,6.0\n8,1,test,4,0,12,1.0\n",
        "products.csv": "product_id,product_name,aisle_id,department_id\n1,Chocolate Sandwich Cookies,61,19\n",
    }
    (tmp_path / "logs").mkdir()
    for name, text in files.items():
        (tmp_path / "logs" / name).write_text(text)
    done = take_in(spark, tmp_path, "instacart", datetime(2016, 1, 22).date())
    assert (done.files_new, done.rows_read, done.rows_kept) == (2, 5, 4)
    assert done.reasons == {"no partner by order_id": 1}
    columns = ("item_id", "user_id", "basket_id", "event_order", "ts")
    found = [(*row[:4], row[4].replace(tzinfo=None)) for row in table(tmp_path, "events", *columns)]
    assert found == [
        ("28985", "1", "2", 2, datetime(2016, 1, 1, 8)),
        ("33120", "1", "2", 1, datetime(2016, 1, 1, 8)),
        ("33120", "1", "7", 1, datetime(2016, 1, 22, 22)),
        ("9327", "1", "3", 1, datetime(2016, 1, 16, 7)),
    ]
