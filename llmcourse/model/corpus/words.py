"""The closed word lists from which the training corpus is written.

A small model can learn a list by heart, so every "list n animals" has one right answer: the first n items below,
in this order. Each item is a pair (English, Chinese), which also gives the translation task its facts. Nothing here
is random and nothing here is code.

Reference: Eldan and Li, "TinyStories" (2023), for the idea that a tiny model needs a tiny world. Week 1.
"""

from __future__ import annotations

Pairs = tuple[tuple[str, str], ...]


def _pairs(text: str) -> Pairs:
    """Read "cat 猫, dog 狗" into (("cat", "猫"), ("dog", "狗"))."""
    items = (item.strip().rsplit(" ", 1) for item in text.split(","))
    return tuple((english, chinese) for english, chinese in items)


ANIMALS = _pairs(
    "cat 猫, dog 狗, horse 马, cow 牛, sheep 羊, pig 猪, rabbit 兔子, mouse 老鼠, lion 狮子, tiger 老虎, "
    "bear 熊, wolf 狼, fox 狐狸, monkey 猴子, elephant 大象, snake 蛇, frog 青蛙, duck 鸭子, chicken 鸡, "
    "goat 山羊, deer 鹿, panda 熊猫, whale 鲸鱼, turtle 乌龟"
)
COLOURS = _pairs(
    "red 红色, blue 蓝色, green 绿色, yellow 黄色, black 黑色, white 白色, orange 橙色, purple 紫色, "
    "brown 棕色, pink 粉色, grey 灰色, gold 金色, silver 银色, cyan 青色"
)
FRUITS = _pairs(
    "apple 苹果, banana 香蕉, grape 葡萄, pear 梨, peach 桃子, cherry 樱桃, lemon 柠檬, mango 芒果, "
    "melon 甜瓜, plum 李子, kiwi 猕猴桃, fig 无花果, lime 青柠, coconut 椰子, papaya 木瓜, apricot 杏子"
)
FOODS = _pairs(
    "bread 面包, rice 米饭, cheese 奶酪, soup 汤, egg 鸡蛋, fish 鱼肉, noodle 面条, cake 蛋糕, salad 沙拉, "
    "pie 馅饼, pizza 比萨, butter 黄油, honey 蜂蜜, sugar 糖, salt 盐, milk 牛奶"
)
TOOLS = _pairs(
    "hammer 锤子, saw 锯子, knife 刀, rope 绳子, nail 钉子, shovel 铲子, axe 斧头, brush 刷子, ladder 梯子, "
    "drill 钻头, needle 针, broom 扫帚"
)
SPORTS = _pairs(
    "football 足球, tennis 网球, golf 高尔夫, swimming 游泳, running 跑步, skiing 滑雪, boxing 拳击, "
    "sailing 帆船, rowing 划船, hockey 曲棍球, cycling 骑车, diving 跳水"
)
JOBS = _pairs(
    "doctor 医生, teacher 老师, farmer 农民, cook 厨师, driver 司机, nurse 护士, writer 作家, singer 歌手, "
    "painter 画家, pilot 飞行员, lawyer 律师, baker 面包师, soldier 士兵, builder 建筑工"
)
PLANETS = _pairs(
    "Mercury 水星, Venus 金星, Earth 地球, Mars 火星, Jupiter 木星, Saturn 土星, Uranus 天王星, Neptune 海王星"
)
COUNTRIES = _pairs(
    "China 中国, India 印度, Japan 日本, France 法国, Germany 德国, Italy 意大利, Spain 西班牙, Brazil 巴西, "
    "Canada 加拿大, Mexico 墨西哥, Egypt 埃及, Kenya 肯尼亚, Russia 俄罗斯, Norway 挪威, Greece 希腊, "
    "Chile 智利"
)
BODY = _pairs(
    "head 头, hand 手, foot 脚, eye 眼睛, ear 耳朵, nose 鼻子, mouth 嘴, arm 胳膊, leg 腿, knee 膝盖, "
    "back 背, neck 脖子"
)

# name in a prompt (plural) -> (name of one, Chinese name, items)
SETS: dict[str, tuple[str, str, Pairs]] = {
    "animals": ("an animal", "动物", ANIMALS),
    "colours": ("a colour", "颜色", COLOURS),
    "fruits": ("a fruit", "水果", FRUITS),
    "foods": ("a food", "食物", FOODS),
    "tools": ("a tool", "工具", TOOLS),
    "sports": ("a sport", "运动", SPORTS),
    "jobs": ("a job", "职业", JOBS),
    "planets": ("a planet", "行星", PLANETS),
    "countries": ("a country", "国家", COUNTRIES),
    "body parts": ("a body part", "身体部位", BODY),
}
WORDS: Pairs = tuple(pair for _, _, pairs in SETS.values() for pair in pairs)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
